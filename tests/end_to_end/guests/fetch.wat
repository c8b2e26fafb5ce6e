;; `fetch(authority, path)` gets http://authority/path: the body (8 KiB of it at the most), or the name of the error.
;;
;; The core module of fetch.wasm, which is made of it by `make` beside it. By hand, so that no toolchain is needed that
;; brings more of WASI along than HTTP.
(module
  (import "wasi:http/types@0.2.12" "[constructor]fields" (func $fields (result i32)))
  (import "wasi:http/types@0.2.12" "[constructor]outgoing-request" (func $request (param i32) (result i32)))
  (import "wasi:http/types@0.2.12" "[method]outgoing-request.set-scheme"
    (func $set-scheme (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.12" "[method]outgoing-request.set-authority"
    (func $set-authority (param i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.12" "[method]outgoing-request.set-path-with-query"
    (func $set-path (param i32 i32 i32 i32) (result i32)))
  (import "wasi:http/outgoing-handler@0.2.12" "handle" (func $handle (param i32 i32 i32 i32)))
  (import "wasi:http/types@0.2.12" "[method]future-incoming-response.subscribe" (func $subscribe (param i32) (result i32)))
  (import "wasi:http/types@0.2.12" "[method]future-incoming-response.get" (func $get (param i32 i32)))
  (import "wasi:http/types@0.2.12" "[method]incoming-response.consume" (func $consume (param i32 i32)))
  (import "wasi:http/types@0.2.12" "[method]incoming-body.stream" (func $stream (param i32 i32)))
  (import "wasi:io/poll@0.2.12" "[method]pollable.block" (func $block (param i32)))
  (import "wasi:io/streams@0.2.12" "[method]input-stream.blocking-read" (func $read (param i32 i64 i32)))

  (memory (export "memory") 2)
  (data (i32.const 16) "HTTP-request-denied")
  (data (i32.const 48) "connection-refused")
  (data (i32.const 80) "error-code ??")
  (data (i32.const 112) "cannot be read")
  ;; Where the next thing is put; all of it fits into what there is.
  (global $free (mut i32) (i32.const 4096))

  (func (export "cabi_realloc") (param $old i32) (param $was i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and
      (i32.add (global.get $free) (i32.sub (local.get $align) (i32.const 1)))
      (i32.sub (i32.const 0) (local.get $align))))
    (global.set $free (i32.add (local.get $at) (local.get $size)))
    (local.get $at))

  ;; A `result<string, string>`, at 1024.
  (func $answer (param $is-error i32) (param $at i32) (param $length i32) (result i32)
    (i32.store8 (i32.const 1024) (local.get $is-error))
    (i32.store (i32.const 1028) (local.get $at))
    (i32.store (i32.const 1032) (local.get $length))
    (i32.const 1024))

  ;; The error whose case has this number.
  (func $failed (param $case i32) (result i32)
    (if (i32.eq (local.get $case) (i32.const 15)) (then (return (call $answer (i32.const 1) (i32.const 16) (i32.const 19)))))
    (if (i32.eq (local.get $case) (i32.const 6)) (then (return (call $answer (i32.const 1) (i32.const 48) (i32.const 18)))))
    (i32.store8 (i32.const 91) (i32.add (i32.const 48) (i32.div_u (local.get $case) (i32.const 10))))
    (i32.store8 (i32.const 92) (i32.add (i32.const 48) (i32.rem_u (local.get $case) (i32.const 10))))
    (call $answer (i32.const 1) (i32.const 80) (i32.const 13)))

  (func (export "fetch") (param $host i32) (param $host-length i32) (param $path i32) (param $path-length i32) (result i32)
    (local $it i32)
    (local.set $it (call $request (call $fields)))
    ;; some(HTTP), which is case 0
    (drop (call $set-scheme (local.get $it) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0)))
    (if (call $set-authority (local.get $it) (i32.const 1) (local.get $host) (local.get $host-length))
      (then (return (call $answer (i32.const 1) (i32.const 112) (i32.const 14)))))
    (if (call $set-path (local.get $it) (i32.const 1) (local.get $path) (local.get $path-length))
      (then (return (call $answer (i32.const 1) (i32.const 112) (i32.const 14)))))
    (call $handle (local.get $it) (i32.const 0) (i32.const 0) (i32.const 2048))
    (if (i32.load8_u (i32.const 2048)) (then (return (call $failed (i32.load8_u (i32.const 2056))))))
    (local.set $it (i32.load (i32.const 2056)))
    (call $block (call $subscribe (local.get $it)))
    ;; option<result<result<response, error-code>>>, of which the innermost holds u64: each step is 8 bytes
    (call $get (local.get $it) (i32.const 2048))
    (if (i32.load8_u (i32.const 2064)) (then (return (call $failed (i32.load8_u (i32.const 2072))))))
    (call $consume (i32.load (i32.const 2072)) (i32.const 2048))
    (call $stream (i32.load (i32.const 2052)) (i32.const 2048))
    (call $read (i32.load (i32.const 2052)) (i64.const 8192) (i32.const 2048))
    (if (i32.load8_u (i32.const 2048)) (then (return (call $answer (i32.const 0) (i32.const 0) (i32.const 0)))))
    (call $answer (i32.const 0) (i32.load (i32.const 2052)) (i32.load (i32.const 2056)))))
