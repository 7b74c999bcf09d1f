;; Returns a number that no other attempt returns.
(import "cascade:activity/random@0.1.0" "bytes" (func $bytes (param i32 i32)))
(func (export "handle") (type $handle)
  (call $bytes (i32.const 4) (i32.const 64))
  (call $ok_number (i64.load32_u (i32.load (i32.const 64)))))
