// Makes a picture smaller: each new pixel is the mean of those that it stands for. Reads and writes PPM files (P6).
//
// params: {"file": "data/photo.ppm", "width": 12}
// result: {"width": 12, "height": 8, "file": "small.ppm"}, and the file comes back with it.
#include "taskmaster.h"

struct picture {
  long width, height;
  unsigned char *pixels;
};

static int read_picture(const char *path, struct picture *picture) {
  FILE *file = fopen(path, "rb");
  if (!file) return task_fail(TASK_PERMANENT, "file: %s cannot be opened", path);
  long depth = 0;
  if (fscanf(file, "P6 %ld %ld %ld", &picture->width, &picture->height, &depth) != 3 || depth != 255 ||
      picture->width < 1 || picture->height < 1 || picture->width > 20000 || picture->height > 20000)
    return task_fail(TASK_PERMANENT, "file: %s is no PPM picture (P6, 255 levels, at most 20000 wide and high)", path);
  fgetc(file);
  size_t bytes = (size_t)(picture->width * picture->height * 3);
  picture->pixels = malloc(bytes);
  if (!picture->pixels || fread(picture->pixels, 1, bytes, file) != bytes)
    return task_fail(TASK_PERMANENT, "file: %s ends too early", path);
  fclose(file);
  return TASK_DONE;
}

static unsigned char mean(const struct picture *of, long x0, long x1, long y0, long y1, int channel) {
  unsigned long sum = 0;
  for (long y = y0; y < y1; y++)
    for (long x = x0; x < x1; x++) sum += of->pixels[(y * of->width + x) * 3 + channel];
  return (unsigned char)(sum / (unsigned long)((x1 - x0) * (y1 - y0)));
}

static int task(const char *params) {
  int64_t width;
  char *path = task_text(params, "file");
  if (!path) return task_fail(TASK_PERMANENT, "file: the path of a picture is missing");
  struct picture picture = {0};
  int how = read_picture(path, &picture);
  if (how != TASK_DONE) return how;
  if (!task_integer(params, "width", &width) || width < 1 || width > picture.width)
    return task_fail(TASK_PERMANENT, "width: a whole number from 1 to %ld is wanted", picture.width);
  long height = picture.height * (long)width / picture.width;
  if (height < 1) height = 1;
  FILE *out = fopen("small.ppm", "wb");
  if (!out) return task_fail(TASK_RETRY, "small.ppm cannot be written");
  fprintf(out, "P6\n%ld %ld\n255\n", (long)width, height);
  for (long y = 0; y < height; y++) {
    for (long x = 0; x < width; x++)
      for (int channel = 0; channel < 3; channel++)
        fputc(mean(&picture, x * picture.width / width, (x + 1) * picture.width / width, y * picture.height / height,
                   (y + 1) * picture.height / height, channel),
              out);
    task_progress((float)(y + 1) / (float)height, "rows");
  }
  if (fclose(out)) return task_fail(TASK_RETRY, "small.ppm cannot be written");
  task_result("{\"width\":%ld,\"height\":%ld,\"file\":\"small.ppm\"}", (long)width, height);
  return TASK_DONE;
}
