;; Never ends and never calls the host: only the runner can stop it (cancel, timeout).
(module $spin
  (func $_start (export "_start")
    (loop $forever (br $forever))))
