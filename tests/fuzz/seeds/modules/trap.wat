;; Fails in a function called by a function: the task's error shows all three by name.
(module $trap
  (func $_start (export "_start") (call $outer))
  (func $outer (call $deep))
  (func $deep (unreachable)))
