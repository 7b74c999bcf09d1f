;; The activity of `cascade bench workflow --pure`: returns its input. A core
;; module in the canonical ABI, which becomes a component on upload. Every
;; attempt has a fresh instance, so allocating never needs to free.
(module
  (memory (export "memory") 1)
  (global $free (mut i32) (i32.const 1024))

  (func (export "cabi_realloc") (param $old i32) (param $old_len i32) (param $align i32) (param $len i32) (result i32)
    (local $at i32)
    (local.set $at
      (i32.and
        (i32.add (global.get $free) (i32.sub (local.get $align) (i32.const 1)))
        (i32.sub (i32.const 0) (local.get $align))))
    (global.set $free (i32.add (local.get $at) (local.get $len)))
    (block $fits
      (br_if $fits
        (i32.le_u (global.get $free) (i32.mul (memory.size) (i32.const 65536))))
      (br_if $fits
        (i32.ne (i32.const -1)
          (memory.grow (i32.add (i32.shr_u (local.get $len) (i32.const 16)) (i32.const 1)))))
      unreachable)
    (local.get $at))

  ;; The context is five strings, a number, a string and a number; then the input.
  (func (export "handle")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i64)
    (param $input i32) (param $input_len i32) (result i32)
    ;; ok, with the input as it lies
    (i32.store8 (i32.const 0) (i32.const 0))
    (i32.store (i32.const 4) (local.get $input))
    (i32.store (i32.const 8) (local.get $input_len))
    (i32.const 0)))
