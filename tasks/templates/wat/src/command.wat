;; The CRC-32 of what comes on stdin.
(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  ;; 0: address and length for the two functions; 8: how many bytes they moved; 16 to 26: digits; 1024: what is read
  (data (i32.const 0) "\00\04\00\00\00\00\01\00")

  (func $crc (param $crc i32) (param $at i32) (param $end i32) (result i32) (local $bit i32)
    (loop $next
      (if (i32.lt_u (local.get $at) (local.get $end)) (then
        (local.set $crc (i32.xor (local.get $crc) (i32.load8_u (local.get $at))))
        (local.set $bit (i32.const 8))
        (loop $shift
          (local.set $crc (i32.xor (i32.shr_u (local.get $crc) (i32.const 1))
            (i32.and (i32.const 0xedb88320) (i32.sub (i32.const 0) (i32.and (local.get $crc) (i32.const 1))))))
          (br_if $shift (local.tee $bit (i32.sub (local.get $bit) (i32.const 1)))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next))))
    (local.get $crc))

  (func $print (param $number i32) (local $at i32)
    (local.set $at (i32.const 26))
    (loop $digit
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at) (i32.add (i32.const 48) (i32.rem_u (local.get $number) (i32.const 10))))
      (br_if $digit (local.tee $number (i32.div_u (local.get $number) (i32.const 10)))))
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (i32.sub (i32.const 26) (local.get $at)))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))

  (func (export "_start") (local $crc i32)
    (local.set $crc (i32.const -1))
    (loop $more
      (if (i32.eqz (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8))) (then
        (local.set $crc
          (call $crc (local.get $crc) (i32.const 1024) (i32.add (i32.const 1024) (i32.load (i32.const 8)))))
        (br_if $more (i32.load (i32.const 8))))))
    (call $print (i32.xor (local.get $crc) (i32.const -1)))))
