// The product of two matrices.
//
// params: {"a": [[1, 2], [3, 4]], "b": [[5, 6], [7, 8]]}
// result: [[19, 22], [43, 50]]
import { Ended, Reader, done, permanent, progress } from "./taskmaster";

export function task(params: string): Ended {
  const reader = new Reader(params);
  let a: f64[][] = [];
  let b: f64[][] = [];
  reader.expect("{");
  do {
    const name = reader.word();
    reader.expect(":");
    if (name == "a") a = reader.rows();
    else if (name == "b") b = reader.rows();
    else return permanent(`params: ${reader.wrong != "" ? reader.wrong : `unknown field \`${name}\`, a and b are known`}`);
    if (reader.wrong != "") return permanent(`params.${name}: ${reader.wrong}`);
  } while (reader.take(","));
  for (let i = 0; i < a.length; i++)
    if (a[i].length != b.length) return permanent(`params.a[${i}]: has ${a[i].length} numbers, b has ${b.length} rows`);
  for (let i = 1; i < b.length; i++)
    if (b[i].length != b[0].length) return permanent(`params.b[${i}]: is not as long as the first row`);
  return done(product(a, b));
}

function product(a: f64[][], b: f64[][]): string {
  const rows: string[] = [];
  for (let i = 0; i < a.length; i++) {
    const row: string[] = [];
    for (let j = 0; j < (b.length ? b[0].length : 0); j++) {
      let sum: f64 = 0;
      for (let k = 0; k < b.length; k++) sum += a[i][k] * b[k][j];
      row.push(sum.toString());
    }
    rows.push("[" + row.join(",") + "]");
    progress(<f32>(i + 1) / <f32>a.length, "rows");
  }
  return "[" + rows.join(",") + "]";
}
