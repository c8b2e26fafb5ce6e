/* A task in C or C++, from one source as a command and as a component.
 *
 * Include this file in one source file and write `task`. Built as it is, the program is a command: params come on stdin,
 * the result goes to stdout. Built with -DTASKMASTER_COMPONENT (and without an entry point: -mexec-model=reactor) it
 * exports `run`, and `taskmaster modules wrap` makes a component of it.
 *
 * Limits: params and result are as large as the task's memory allows; progress and log lines are cut at 4,095 bytes.
 */
#ifndef TASKMASTER_H
#define TASKMASTER_H

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TASK_DONE 0       /* what was given to task_result is the result */
#define TASK_RETRY 75     /* trying again may help */
#define TASK_PERMANENT 65 /* trying again is of no use */

#ifdef __cplusplus
#define TASK_LINKAGE extern "C"
#else
#define TASK_LINKAGE
#endif
#define TASK_FUNCTION __attribute__((unused, format(printf, 1, 2))) static void

/* Yours to write. `params` is JSON, ended by a zero byte; "null" where there are none. Gives back TASK_DONE, or what
 * task_fail gives. */
static int task(const char *params);

struct task_buffer {
  char *bytes;
  size_t length;
};
static struct task_buffer task_out, task_why;

/* Appends to a buffer. A task that gets no memory traps, as a failure of its own. */
__attribute__((unused)) static void task_append(struct task_buffer *to, const char *format, va_list more) {
  va_list again;
  va_copy(again, more);
  int needed = vsnprintf(NULL, 0, format, again);
  va_end(again);
  if (needed < 0) __builtin_trap();
  char *grown = (char *)realloc(to->bytes, to->length + (size_t)needed + 1);
  if (!grown) __builtin_trap();
  vsnprintf(grown + to->length, (size_t)needed + 1, format, more);
  to->bytes = grown;
  to->length += (size_t)needed;
}

/* Appends to the result, as printf would: JSON, or any text. */
TASK_FUNCTION task_result(const char *format, ...) {
  va_list more;
  va_start(more, format);
  task_append(&task_out, format, more);
  va_end(more);
}

/* Says why the task fails: `return task_fail(TASK_PERMANENT, "width is %d", width);` */
__attribute__((unused, format(printf, 2, 3))) static int task_fail(int how, const char *format, ...) {
  va_list more;
  va_start(more, format);
  task_append(&task_why, format, more);
  va_end(more);
  return how;
}

#ifdef TASKMASTER_COMPONENT

#define TASK_IMPORT(name) __attribute__((import_module("taskmaster:task/host@1.0.0"), import_name(name))) TASK_LINKAGE
TASK_IMPORT("progress") void task_host_progress(float fraction, const char *note, size_t length);
TASK_IMPORT("partial") void task_host_partial(const char *value, size_t length);
TASK_IMPORT("log") void task_host_log(const char *text, size_t length);
TASK_IMPORT("add") void task_host_add(const char *document, size_t length, void *answer);
TASK_IMPORT("then") void task_host_then(const char *document, size_t length, void *answer);

/* How far the task is, from 0 to 1. */
__attribute__((unused)) static void task_progress(float fraction, const char *note) {
  task_host_progress(fraction, note, strlen(note));
}
/* A first part of the result, JSON. */
__attribute__((unused)) static void task_partial(const char *json) { task_host_partial(json, strlen(json)); }
/* Adds a task, a document in JSON, when this one is done. 0: it is well formed. */
__attribute__((unused)) static int task_add(const char *document) {
  struct { uint8_t failed; void *text; size_t length; } answer;
  task_host_add(document, strlen(document), &answer);
  return answer.failed;
}
/* When this one is done, it goes on as that task. 0: it is well formed. */
__attribute__((unused)) static int task_then(const char *document) {
  struct { uint8_t failed; void *text; size_t length; } answer;
  task_host_then(document, strlen(document), &answer);
  return answer.failed;
}
/* A line for the task's log. */
TASK_FUNCTION task_log(const char *format, ...) {
  char line[4096];
  va_list more;
  va_start(more, format);
  int length = vsnprintf(line, sizeof line, format, more);
  va_end(more);
  if (length > 0) task_host_log(line, (size_t)length < sizeof line ? (size_t)length : sizeof line - 1);
}

TASK_LINKAGE __attribute__((export_name("cabi_realloc"))) void *task_realloc(void *old, size_t was, size_t align, size_t size) {
  (void)was;
  if (size == 0) return (void *)align;
  void *grown = realloc(old, size);
  if (!grown) __builtin_trap();
  return grown;
}

/* result<string, error>, where error is a variant of two strings. */
static struct {
  uint8_t failed;
  union {
    struct { const char *text; size_t length; } ok;
    struct { uint8_t permanent; const char *text; size_t length; } error;
  } is;
} task_answer;

TASK_LINKAGE __attribute__((export_name("run"))) void *task_run(char *params, size_t length) {
  char *text = (char *)malloc(length + 1);
  if (!text) __builtin_trap();
  memcpy(text, params, length);
  text[length] = 0;
  int how = task(text);
  task_answer.failed = how != TASK_DONE;
  if (how == TASK_DONE) {
    task_answer.is.ok.text = task_out.bytes;
    task_answer.is.ok.length = task_out.length;
  } else {
    task_answer.is.error.permanent = how == TASK_PERMANENT;
    task_answer.is.error.text = task_why.bytes;
    task_answer.is.error.length = task_why.length;
  }
  return &task_answer;
}

#else

__attribute__((unused)) static void task_progress(float fraction, const char *note) {
  fprintf(stderr, "::progress %g %s\n", (double)fraction, note);
}
__attribute__((unused)) static void task_partial(const char *json) { fprintf(stderr, "::partial %s\n", json); }
__attribute__((unused)) static int task_add(const char *document) { return fprintf(stderr, "::add %s\n", document) < 0; }
__attribute__((unused)) static int task_then(const char *document) { return fprintf(stderr, "::then %s\n", document) < 0; }
TASK_FUNCTION task_log(const char *format, ...) {
  va_list more;
  va_start(more, format);
  vfprintf(stderr, format, more);
  va_end(more);
  fputc('\n', stderr);
}

int main(void) {
  size_t length = 0, room = 65536;
  char *params = (char *)malloc(room);
  while (params) {
    length += fread(params + length, 1, room - 1 - length, stdin);
    if (length < room - 1) break;
    params = (char *)realloc(params, room *= 2);
  }
  if (!params) __builtin_trap();
  params[length] = 0;
  int how = task(length ? params : "null");
  if (how == TASK_DONE) {
    fwrite(task_out.bytes, 1, task_out.length, stdout);
    return fflush(stdout) ? TASK_RETRY : 0;
  }
  fprintf(stderr, "%s\n", task_why.bytes ? task_why.bytes : "it failed and did not say why");
  return how;
}

#endif

/* ---- Reading params: the fields of one JSON object. ---- */

static const char *task_skip_space(const char *at) {
  while (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r') at++;
  return at;
}

/* The first byte after the value that begins at `at`. Params are valid JSON: the master has seen to that. */
static const char *task_skip_value(const char *at) {
  int depth = 0;
  do {
    at = task_skip_space(at);
    if (*at == '"') {
      for (at++; *at && *at != '"'; at++)
        if (*at == '\\' && at[1]) at++;
      if (*at) at++;
    } else if (*at == '{' || *at == '[') {
      depth++, at++;
    } else if (*at == '}' || *at == ']') {
      depth--, at++;
    } else if (*at == ',' || *at == ':') {
      at++;
    } else {
      while (*at && !strchr(" \t\r\n,:]}", *at)) at++;
    }
  } while (*at && depth > 0);
  return at;
}

/* Where the value of a field begins; NULL if params have no such field. Names with escapes are not found. */
static const char *task_field(const char *params, const char *name) {
  const char *at = task_skip_space(params);
  if (*at != '{') return NULL;
  at = task_skip_space(at + 1);
  while (*at == '"') {
    const char *key = at + 1, *end = task_skip_value(at);
    const char *value = task_skip_space(task_skip_space(end) + 1);
    if (strlen(name) == (size_t)(end - 1 - key) && !strncmp(name, key, strlen(name))) return value;
    at = task_skip_space(task_skip_value(value));
    if (*at != ',') return NULL;
    at = task_skip_space(at + 1);
  }
  return NULL;
}

/* A whole number in a field. 0: it is not there, or no whole number within int64_t. */
__attribute__((unused)) static int task_integer(const char *params, const char *name, int64_t *number) {
  const char *at = task_field(params, name);
  char *end = NULL;
  if (!at || (*at != '-' && (*at < '0' || *at > '9'))) return 0;
  long long read = strtoll(at, &end, 10);
  if (*end && !strchr(" \t\r\n,}", *end)) return 0;
  *number = read;
  return 1;
}

static unsigned task_hex(const char *at) {
  char digits[5] = {0};
  for (int i = 0; i < 4 && at[i]; i++) digits[i] = at[i];
  return (unsigned)strtoul(digits, NULL, 16);
}

static char *task_put_utf8(char *to, unsigned c) {
  if (c < 0x80) {
    *to++ = (char)c;
  } else if (c < 0x800) {
    *to++ = (char)(0xc0 | c >> 6);
    *to++ = (char)(0x80 | (c & 63));
  } else if (c < 0x10000) {
    *to++ = (char)(0xe0 | c >> 12);
    *to++ = (char)(0x80 | (c >> 6 & 63));
    *to++ = (char)(0x80 | (c & 63));
  } else {
    *to++ = (char)(0xf0 | c >> 18);
    *to++ = (char)(0x80 | (c >> 12 & 63));
    *to++ = (char)(0x80 | (c >> 6 & 63));
    *to++ = (char)(0x80 | (c & 63));
  }
  return to;
}

/* The text in a field, UTF-8, to be freed; NULL: it is not there, or no string. */
__attribute__((unused)) static char *task_text(const char *params, const char *name) {
  const char *at = task_field(params, name);
  if (!at || *at != '"') return NULL;
  const char *end = task_skip_value(at) - 1;
  char *text = (char *)malloc((size_t)(end - at) + 1), *to = text;
  if (!text) __builtin_trap();
  for (at++; at < end; at++) {
    if (*at != '\\') {
      *to++ = *at;
      continue;
    }
    static const char escapes[] = "b\bf\fn\nr\rt\t";
    const char *known = *++at ? strchr(escapes, *at) : NULL;
    if (*at == 'u') {
      unsigned c = task_hex(at + 1);
      at += 4;
      if (c >= 0xd800 && c < 0xdc00 && at[1] == '\\' && at[2] == 'u') {
        c = 0x10000 + ((c - 0xd800) << 10) + (task_hex(at + 3) - 0xdc00);
        at += 6;
      }
      to = task_put_utf8(to, c);
    } else {
      *to++ = known ? known[1] : *at;
    }
  }
  *to = 0;
  return text;
}

/* Appends a text to the result as a JSON string. */
__attribute__((unused)) static void task_result_text(const char *text, size_t length) {
  task_result("\"");
  for (size_t i = 0; i < length; i++) {
    unsigned char c = (unsigned char)text[i];
    if (c == '"' || c == '\\') task_result("\\%c", c);
    else if (c < 0x20) task_result("\\u%04x", c);
    else task_result("%c", c);
  }
  task_result("\"");
}

#endif
