;; WASI preview 1 as constants, for toolchains that insist on it (Go, a C library's stdio, Rust's wasm32-wasip1).
;;
;; It becomes part of the guest when a core module is wrapped: it runs in the guest's memory, on the guest's fuel, and
;; asks the host for nothing but the log. So it cannot make two nodes differ. There are no arguments, no environment
;; and no files; the clock stands still; random bytes are the same in every call; standard input is at its end;
;; standard output and standard error are log lines; exit is a crash. Errors: 8 is badf, 29 is spipe.
(module
  (import "env" "memory" (memory 0))
  (import "sibyl:resolver/logging@0.1.0" "log" (func $log (param $level i32) (param $at i32) (param $length i32)))

  ;; One second after the epoch, in nanoseconds: Go takes 0 for a broken clock.
  (global $now i64 (i64.const 1000000000))
  ;; State of the random numbers (xorshift64*).
  (global $random (mut i64) (i64.const 0x5159_4249_4c21_2121))
  ;; A page of the guest's memory for unfinished lines, once something is written: 1 KiB of each stream.
  (global $lines (mut i32) (i32.const 0))
  (global $out_length (mut i32) (i32.const 0))
  (global $err_length (mut i32) (i32.const 0))

  ;; --- arguments, environment, clock, randomness -----------------------------------------------------------
  (func $nothing (param $count i32) (param $bytes i32) (result i32)
    (i32.store (local.get $count) (i32.const 0))
    (i32.store (local.get $bytes) (i32.const 0))
    (i32.const 0))
  (func (export "args_sizes_get") (param i32 i32) (result i32)
    (call $nothing (local.get 0) (local.get 1)))
  (func (export "environ_sizes_get") (param i32 i32) (result i32)
    (call $nothing (local.get 0) (local.get 1)))
  (func (export "args_get") (param i32 i32) (result i32) (i32.const 0))
  (func (export "environ_get") (param i32 i32) (result i32) (i32.const 0))
  (func (export "clock_res_get") (param $clock i32) (param $to i32) (result i32)
    (i64.store (local.get $to) (i64.const 1))
    (i32.const 0))
  (func (export "clock_time_get") (param $clock i32) (param $precision i64) (param $to i32) (result i32)
    (i64.store (local.get $to) (global.get $now))
    (i32.const 0))
  (func (export "random_get") (param $to i32) (param $length i32) (result i32)
    (local $x i64)
    (loop $next
      (if (i32.eqz (local.get $length)) (then (return (i32.const 0))))
      (local.set $x (global.get $random))
      (local.set $x (i64.xor (local.get $x) (i64.shr_u (local.get $x) (i64.const 12))))
      (local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 25))))
      (local.set $x (i64.xor (local.get $x) (i64.shr_u (local.get $x) (i64.const 27))))
      (global.set $random (local.get $x))
      (i64.store8 (local.get $to)
        (i64.shr_u (i64.mul (local.get $x) (i64.const 0x2545_f491_4f6c_dd1d)) (i64.const 56)))
      (local.set $to (i32.add (local.get $to) (i32.const 1)))
      (local.set $length (i32.sub (local.get $length) (i32.const 1)))
      (br $next))
    (unreachable))

  ;; --- output ----------------------------------------------------------------------------------------------
  (func (export "fd_write") (param $fd i32) (param $parts i32) (param $count i32) (param $written i32) (result i32)
    (local $at i32) (local $end i32) (local $sum i32)
    (if (i32.gt_u (i32.sub (local.get $fd) (i32.const 1)) (i32.const 1)) (then (return (i32.const 8))))
    (loop $part
      (if (local.get $count) (then
        (local.set $at (i32.load (local.get $parts)))
        (local.set $end (i32.load offset=4 (local.get $parts)))
        (local.set $sum (i32.add (local.get $sum) (local.get $end)))
        (local.set $end (i32.add (local.get $at) (local.get $end)))
        (loop $byte
          (if (i32.ne (local.get $at) (local.get $end)) (then
            (call $put (local.get $fd) (i32.load8_u (local.get $at)))
            (local.set $at (i32.add (local.get $at) (i32.const 1)))
            (br $byte))))
        (local.set $parts (i32.add (local.get $parts) (i32.const 8)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $part))))
    (i32.store (local.get $written) (local.get $sum))
    (i32.const 0))

  ;; One byte of a stream; a line feed, or a full line, goes to the log.
  (func $put (param $fd i32) (param $byte i32)
    (local $length i32)
    (if (i32.eqz (global.get $lines)) (then
      (global.set $lines (memory.grow (i32.const 1)))
      (if (i32.eq (global.get $lines) (i32.const -1)) (then (unreachable)))
      (global.set $lines (i32.shl (global.get $lines) (i32.const 16)))))
    (if (i32.eq (local.get $byte) (i32.const 10)) (then (call $flush (local.get $fd)) (return)))
    (local.set $length (call $length (local.get $fd)))
    (i32.store8 (i32.add (call $line (local.get $fd)) (local.get $length)) (local.get $byte))
    (local.set $length (i32.add (local.get $length) (i32.const 1)))
    (call $set_length (local.get $fd) (local.get $length))
    (if (i32.eq (local.get $length) (i32.const 1024)) (then (call $flush (local.get $fd)))))

  ;; The unfinished line of a stream to the log: standard output as info, standard error as error.
  (func $flush (param $fd i32)
    (if (i32.eqz (call $length (local.get $fd))) (then (return)))
    (call $clean (call $line (local.get $fd)) (call $length (local.get $fd)))
    (call $log
      (select (i32.const 1) (i32.const 3) (i32.eq (local.get $fd) (i32.const 1)))
      (call $line (local.get $fd))
      (call $length (local.get $fd)))
    (call $set_length (local.get $fd) (i32.const 0)))

  (func $line (param $fd i32) (result i32)
    (i32.add (global.get $lines) (i32.shl (i32.sub (local.get $fd) (i32.const 1)) (i32.const 10))))
  (func $length (param $fd i32) (result i32)
    (select (global.get $out_length) (global.get $err_length) (i32.eq (local.get $fd) (i32.const 1))))
  (func $set_length (param $fd i32) (param $length i32)
    (if (i32.eq (local.get $fd) (i32.const 1))
      (then (global.set $out_length (local.get $length)))
      (else (global.set $err_length (local.get $length)))))

  ;; The log takes UTF-8 only: a byte that belongs to no character becomes a question mark.
  (func $clean (param $at i32) (param $length i32)
    (local $end i32) (local $size i32)
    (local.set $end (i32.add (local.get $at) (local.get $length)))
    (loop $next
      (if (i32.lt_u (local.get $at) (local.get $end)) (then
        (local.set $size (call $character (local.get $at) (local.get $end)))
        (if (i32.eqz (local.get $size)) (then
          (i32.store8 (local.get $at) (i32.const 63))
          (local.set $size (i32.const 1))))
        (local.set $at (i32.add (local.get $at) (local.get $size)))
        (br $next)))))

  ;; Bytes of the character that begins here; 0 if none does.
  (func $character (param $at i32) (param $end i32) (result i32)
    (local $lead i32) (local $second i32) (local $size i32) (local $i i32)
    (local.set $lead (i32.load8_u (local.get $at)))
    (if (i32.lt_u (local.get $lead) (i32.const 0x80)) (then (return (i32.const 1))))
    (if (i32.lt_u (local.get $lead) (i32.const 0xc2)) (then (return (i32.const 0))))
    (if (i32.gt_u (local.get $lead) (i32.const 0xf4)) (then (return (i32.const 0))))
    (local.set $size
      (i32.add (i32.const 2)
        (i32.add
          (i32.ge_u (local.get $lead) (i32.const 0xe0))
          (i32.ge_u (local.get $lead) (i32.const 0xf0)))))
    (if (i32.gt_u (i32.add (local.get $at) (local.get $size)) (local.get $end)) (then (return (i32.const 0))))
    (local.set $i (i32.const 1))
    (loop $continuation
      (if (i32.ne (i32.and (i32.load8_u (i32.add (local.get $at) (local.get $i))) (i32.const 0xc0)) (i32.const 0x80))
        (then (return (i32.const 0))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $continuation (i32.lt_u (local.get $i) (local.get $size))))
    (local.set $second (i32.load8_u offset=1 (local.get $at)))
    ;; Longer than need be, half of a surrogate pair, or beyond the last character.
    (if (i32.and (i32.eq (local.get $lead) (i32.const 0xe0)) (i32.lt_u (local.get $second) (i32.const 0xa0)))
      (then (return (i32.const 0))))
    (if (i32.and (i32.eq (local.get $lead) (i32.const 0xed)) (i32.gt_u (local.get $second) (i32.const 0x9f)))
      (then (return (i32.const 0))))
    (if (i32.and (i32.eq (local.get $lead) (i32.const 0xf0)) (i32.lt_u (local.get $second) (i32.const 0x90)))
      (then (return (i32.const 0))))
    (if (i32.and (i32.eq (local.get $lead) (i32.const 0xf4)) (i32.gt_u (local.get $second) (i32.const 0x8f)))
      (then (return (i32.const 0))))
    (local.get $size))

  ;; --- the end ---------------------------------------------------------------------------------------------
  (func $exit
    (call $flush (i32.const 1))
    (call $flush (i32.const 2))
    (unreachable))
  (func (export "proc_exit") (param $code i32) (call $exit))
  (func (export "proc_raise") (param $signal i32) (result i32) (call $exit) (unreachable))

  ;; --- waiting: whatever is waited for is there at once, and no time passes -----------------------------------
  (func (export "sched_yield") (result i32) (i32.const 0))
  (func (export "poll_oneoff")
    (param $from i32) (param $to i32) (param $count i32) (param $happened i32) (result i32)
    (i32.store (local.get $happened) (local.get $count))
    (loop $next
      (if (local.get $count) (then
        (i64.store (local.get $to) (i64.load (local.get $from)))
        (i64.store offset=8 (local.get $to) (i64.const 0))
        (i32.store8 offset=10 (local.get $to) (i32.load8_u offset=8 (local.get $from)))
        (i64.store offset=16 (local.get $to) (i64.const 0))
        (i64.store offset=24 (local.get $to) (i64.const 0))
        (local.set $from (i32.add (local.get $from) (i32.const 48)))
        (local.set $to (i32.add (local.get $to) (i32.const 32)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $next))))
    (i32.const 0))

  ;; --- the three streams, and no other descriptor --------------------------------------------------------------
  (func $stream (param $fd i32) (result i32)
    (select (i32.const 0) (i32.const 8) (i32.lt_u (local.get $fd) (i32.const 3))))
  (func (export "fd_close") (param i32) (result i32) (call $stream (local.get 0)))
  (func (export "fd_fdstat_get") (param $fd i32) (param $to i32) (result i32)
    (if (i32.gt_u (local.get $fd) (i32.const 2)) (then (return (i32.const 8))))
    ;; A character device that may be read and written.
    (i64.store (local.get $to) (i64.const 2))
    (i64.store offset=8 (local.get $to) (i64.const 0x42))
    (i64.store offset=16 (local.get $to) (i64.const 0))
    (i32.const 0))
  (func (export "fd_fdstat_set_flags") (param i32 i32) (result i32) (call $stream (local.get 0)))
  (func (export "fd_read") (param $fd i32) (param $parts i32) (param $count i32) (param $read i32) (result i32)
    (if (local.get $fd) (then (return (i32.const 8))))
    (i32.store (local.get $read) (i32.const 0))
    (i32.const 0))
  (func (export "fd_seek") (param $fd i32) (param i64 i32 i32) (result i32)
    (select (i32.const 29) (i32.const 8) (i32.lt_u (local.get $fd) (i32.const 3))))
  (func (export "fd_tell") (param i32 i32) (result i32)
    (select (i32.const 29) (i32.const 8) (i32.lt_u (local.get 0) (i32.const 3))))
  (func (export "fd_prestat_get") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_prestat_dir_name") (param i32 i32 i32) (result i32) (i32.const 8))
  (func (export "fd_advise") (param i32 i64 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_allocate") (param i32 i64 i64) (result i32) (i32.const 8))
  (func (export "fd_datasync") (param i32) (result i32) (i32.const 8))
  (func (export "fd_fdstat_set_rights") (param i32 i64 i64) (result i32) (i32.const 8))
  (func (export "fd_filestat_get") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_filestat_set_size") (param i32 i64) (result i32) (i32.const 8))
  (func (export "fd_filestat_set_times") (param i32 i64 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_pread") (param i32 i32 i32 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_pwrite") (param i32 i32 i32 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_readdir") (param i32 i32 i32 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_renumber") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_sync") (param i32) (result i32) (i32.const 8))
)
