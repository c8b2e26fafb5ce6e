;; Sleeps for as many milliseconds as the params say (a whole number of at most 13 digits), then returns that number.
;;
;; Memory:   0  one iovec (address, length)
;;           8  how many bytes a call has moved, or how many events have come
;;          16  the subscription of poll_oneoff (48 bytes)
;;          64  the event it answers with (32 bytes)
;;         128  the message for bad params
;;        1024  the params
(module $sleep
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 128) "params: expected a whole number of milliseconds of at most 13 digits, such as 250\n")
  (global $message_length i32 (i32.const 82))
  (global $params i32 (i32.const 1024))
  (global $longest i32 (i32.const 64)) ;; a longer text cannot be a number that we take
  (global $first (mut i32) (i32.const 0)) ;; the first digit
  (global $last (mut i32) (i32.const 0)) ;; behind the last digit

  (func $_start (export "_start")
    (call $nap (call $parse (call $read)))
    (call $write (i32.const 1) (global.get $first) (i32.sub (global.get $last) (global.get $first))))

  ;; Reads the params and returns the address behind them.
  (func $read (result i32)
    (local $end i32) (local $limit i32)
    (local.set $end (global.get $params))
    (local.set $limit (i32.add (global.get $params) (global.get $longest)))
    (block $done
      (loop $more
        (if (i32.eq (local.get $end) (local.get $limit)) (then (call $refuse)))
        (call $iovec (local.get $end) (i32.sub (local.get $limit) (local.get $end)))
        (call $must (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
        (br_if $done (i32.eqz (i32.load (i32.const 8)))) ;; nothing read: the input has ended
        (local.set $end (i32.add (local.get $end) (i32.load (i32.const 8))))
        (br $more)))
    (local.get $end))

  ;; blanks, digits, blanks, and nothing else
  (func $parse (param $end i32) (result i64)
    (local $number i64)
    (global.set $first (call $skip_blanks (global.get $params) (local.get $end)))
    (global.set $last (global.get $first))
    (block $done
      (loop $more
        (br_if $done (i32.ge_u (global.get $last) (local.get $end)))
        (br_if $done (i32.ge_u (call $digit (global.get $last)) (i32.const 10)))
        (local.set $number
          (i64.add
            (i64.mul (local.get $number) (i64.const 10))
            (i64.extend_i32_u (call $digit (global.get $last)))))
        (global.set $last (i32.add (global.get $last) (i32.const 1)))
        (br $more)))
    (if (i32.eq (global.get $first) (global.get $last)) (then (call $refuse)))
    ;; 13 digits of milliseconds are 317 years; as nanoseconds they still fit into 64 bits
    (if (i32.gt_u (i32.sub (global.get $last) (global.get $first)) (i32.const 13)) (then (call $refuse)))
    (if (i32.ne (call $skip_blanks (global.get $last) (local.get $end)) (local.get $end)) (then (call $refuse)))
    (local.get $number))

  (func $skip_blanks (param $at i32) (param $end i32) (result i32)
    (block $done
      (loop $more
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (br_if $done (i32.gt_u (i32.load8_u (local.get $at)) (i32.const 32)))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $more)))
    (local.get $at))

  ;; The digit at an address; 10 or more if there is none.
  (func $digit (param $at i32) (result i32)
    (i32.sub (i32.load8_u (local.get $at)) (i32.const 48)))

  ;; Waits in the host, on the monotonic clock: a task that sleeps uses no processor time.
  (func $nap (param $milliseconds i64)
    (i32.store (i32.const 32) (i32.const 1)) ;; clock 1: monotonic; tag (at 24), precision and flags stay 0
    (i64.store (i32.const 40) (i64.mul (local.get $milliseconds) (i64.const 1000000)))
    (call $must (call $poll_oneoff (i32.const 16) (i32.const 64) (i32.const 1) (i32.const 8))))

  (func $write (param $fd i32) (param $address i32) (param $length i32)
    (call $iovec (local.get $address) (local.get $length))
    (call $must (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))

  (func $iovec (param $address i32) (param $length i32)
    (i32.store (i32.const 0) (local.get $address))
    (i32.store (i32.const 4) (local.get $length)))

  ;; Ends the task with exit code 1 if a call has failed.
  (func $must (param $failed i32)
    (if (local.get $failed) (then (call $proc_exit (i32.const 1)))))

  ;; Bad params fail for good: exit code 65.
  (func $refuse
    (call $write (i32.const 2) (i32.const 128) (global.get $message_length))
    (call $proc_exit (i32.const 65))))
