;; The result is the params, byte for byte, whatever their length.
;;
;; Memory: 0  one iovec (address, length)
;;         8  how many bytes a call has moved
;;        16  the input, up to the end of memory
(module $echo
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (global $input i32 (i32.const 16))

  (func $_start (export "_start")
    (call $write_all (call $read_all)))

  ;; Reads until the end of the input and returns the address behind its last byte.
  (func $read_all (result i32)
    (local $end i32)
    (local.set $end (global.get $input))
    (block $done
      (loop $more
        (call $make_room (local.get $end))
        (call $iovec (local.get $end) (i32.sub (call $memory_end) (local.get $end)))
        (call $must (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
        (br_if $done (i32.eqz (i32.load (i32.const 8)))) ;; nothing read: the input has ended
        (local.set $end (i32.add (local.get $end) (i32.load (i32.const 8))))
        (br $more)))
    (local.get $end))

  ;; One write may take less than it was given: goes on until all is out.
  (func $write_all (param $end i32)
    (local $at i32)
    (local.set $at (global.get $input))
    (block $done
      (loop $more
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (call $iovec (local.get $at) (i32.sub (local.get $end) (local.get $at)))
        (call $must (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
        (local.set $at (i32.add (local.get $at) (i32.load (i32.const 8))))
        (br $more))))

  ;; Doubles the memory when it is full: a long input costs few calls and is never copied.
  (func $make_room (param $end i32)
    (if (i32.eq (local.get $end) (call $memory_end))
      (then
        (call $must (i32.eq (memory.grow (memory.size)) (i32.const -1))))))

  (func $memory_end (result i32)
    (i32.mul (memory.size) (i32.const 65536)))

  (func $iovec (param $address i32) (param $length i32)
    (i32.store (i32.const 0) (local.get $address))
    (i32.store (i32.const 4) (local.get $length)))

  ;; Ends the task with exit code 1 if a call has failed.
  (func $must (param $failed i32)
    (if (local.get $failed) (then (call $proc_exit (i32.const 1))))))
