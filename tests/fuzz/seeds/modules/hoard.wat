;; Takes memory until the runner refuses more (`memory_mb`), then gives up with a trap.
(module $hoard
  (memory (export "memory") 1)
  (func $_start (export "_start")
    (loop $more
      (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) ;; 1 MiB at a time
    (unreachable)))
