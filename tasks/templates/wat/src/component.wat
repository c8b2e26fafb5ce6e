;; The CRC-32 of a text, as a component with one function whose params and result have types.
(component
  (core module $crc
    (memory (export "memory") 1)
    (global $free (mut i32) (i32.const 16))
    ;; Nothing is given back: an instance serves one task.
    (func (export "realloc") (param $old i32) (param $was i32) (param $align i32) (param $size i32) (result i32)
      (local $at i32) (local $pages i32)
      (local.set $at (global.get $free))
      (global.set $free (i32.add (local.get $at) (i32.and (i32.add (local.get $size) (i32.const 7)) (i32.const -8))))
      (local.set $pages (i32.shr_u (i32.add (global.get $free) (i32.const 65535)) (i32.const 16)))
      (if (i32.gt_u (local.get $pages) (memory.size)) (then
        (if (i32.eq (memory.grow (i32.sub (local.get $pages) (memory.size))) (i32.const -1)) (then unreachable))))
      (local.get $at))
    (func (export "crc32") (param $at i32) (param $length i32) (result i32) (local $crc i32) (local $bit i32)
      (local.set $crc (i32.const -1))
      (loop $next
        (if (local.get $length) (then
          (local.set $crc (i32.xor (local.get $crc) (i32.load8_u (local.get $at))))
          (local.set $bit (i32.const 8))
          (loop $shift
            (local.set $crc (i32.xor (i32.shr_u (local.get $crc) (i32.const 1))
              (i32.and (i32.const 0xedb88320) (i32.sub (i32.const 0) (i32.and (local.get $crc) (i32.const 1))))))
            (br_if $shift (local.tee $bit (i32.sub (local.get $bit) (i32.const 1)))))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (local.set $length (i32.sub (local.get $length) (i32.const 1)))
          (br $next))))
      (i32.xor (local.get $crc) (i32.const -1))))
  (core instance $i (instantiate $crc))
  (func (export "crc32") (param "text" string) (result u32)
    (canon lift (core func $i "crc32") (memory (core memory $i "memory")) (realloc (core func $i "realloc")))))
