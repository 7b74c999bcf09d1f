;; Fails on its first attempt, then returns its input.
(data (i32.const 4096) "ServiceUnavailable")
(func (export "handle") (type $handle)
  (if (i32.eq (local.get 10) (i32.const 1)) (then
    (return (call $err (i32.const 4096) (i32.const 18) (i32.const 4096) (i32.const 18) (i32.const 1)))))
  (call $ok (local.get 14) (local.get 15)))
