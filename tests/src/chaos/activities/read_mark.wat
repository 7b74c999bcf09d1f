;; Returns what `mark` left under the key that its input is, as a JSON array,
;; or null.
(import "cascade:activity/key-value@0.1.0" "get" (func $get (param i32 i32 i32)))
(data (i32.const 4096) "ServiceUnavailable")
(data (i32.const 4128) "null")
(func (export "handle") (type $handle)
  (local $len i32) (local $new i32)
  ;; the key is the input less its quotes
  (call $get (i32.add (local.get 14) (i32.const 1)) (i32.sub (local.get 15) (i32.const 2)) (i32.const 64))
  (if (i32.load8_u (i32.const 64)) (then
    (return (call $err (i32.const 4096) (i32.const 18) (i32.const 4096) (i32.const 18) (i32.const 1)))))
  (if (i32.eqz (i32.load8_u (i32.const 68))) (then
    (return (call $ok (i32.const 4128) (i32.const 4)))))
  (local.set $len (i32.load (i32.const 76)))
  (local.set $new (call $grab (i32.add (local.get $len) (i32.const 1)) (i32.const 1)))
  (memory.copy (local.get $new) (i32.load (i32.const 72)) (local.get $len))
  (i32.store8 (i32.add (local.get $new) (local.get $len)) (i32.const 93))
  (call $ok (local.get $new) (i32.add (local.get $len) (i32.const 1))))
