;; An effect that can be counted: appends its input to what lies under its
;; idempotency key, and returns it. After n runs there lies `[` and n inputs,
;; with commas between them.
(import "cascade:activity/key-value@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32)))
(import "cascade:activity/key-value@0.1.0" "get" (func $get (param i32 i32 i32)))
(data (i32.const 4096) "ServiceUnavailable")
(func (export "handle") (type $handle)
  (local $old i32) (local $old_len i32) (local $new i32) (local $new_len i32)
  (call $get (local.get 11) (local.get 12) (i32.const 64))
  ;; result<option<list<u8>>>: tag at 64, option at 68, pointer at 72, length at 76
  (if (i32.load8_u (i32.const 64)) (then (return (call $unavailable))))
  (if (i32.load8_u (i32.const 68)) (then
    (local.set $old (i32.load (i32.const 72)))
    (local.set $old_len (i32.load (i32.const 76)))))
  (local.set $new_len (i32.add (i32.add (local.get $old_len) (i32.const 1)) (local.get 15)))
  (local.set $new (call $grab (local.get $new_len) (i32.const 1)))
  (memory.copy (local.get $new) (local.get $old) (local.get $old_len))
  (i32.store8 (i32.add (local.get $new) (local.get $old_len))
    (select (i32.const 44) (i32.const 91) (local.get $old_len)))
  (memory.copy
    (i32.add (i32.add (local.get $new) (local.get $old_len)) (i32.const 1))
    (local.get 14) (local.get 15))
  (call $set (local.get 11) (local.get 12) (local.get $new) (local.get $new_len) (i32.const 64))
  (if (i32.load8_u (i32.const 64)) (then (return (call $unavailable))))
  (call $ok (local.get 14) (local.get 15)))
(func $unavailable (result i32)
  (call $err (i32.const 4096) (i32.const 18) (i32.const 4096) (i32.const 18) (i32.const 1)))
