//! The wasmtime engine: one for the process, with its pool of slots and the
//! thread that ticks its epoch.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
};

/// Most elements of one table. Real modules have some thousands (one for each
/// function whose address is taken); Python's libraries have the most, 30,000.
pub(super) const TABLE_ELEMENTS: usize = 100_000;

/// Tables of a slot, beside its one memory: a component with host imports has
/// its own instance, a shim and a fixup, and a table for each.
pub(super) const TABLES_PER_SLOT: u32 = 3;

/// Most slots that one attempt may take: Python components are linked from
/// about forty libraries, which share a memory and have a table each.
pub(super) const MAX_SLOTS_PER_ATTEMPT: u32 = 16;

/// Most core instances of one attempt, those of nested components and the
/// adapters between them included. The pool only counts them, and has room for
/// as many as all slots together could make: they never run out.
pub(super) const MAX_CORE_INSTANCES: u32 = 80;

/// Bytes of a memory that are written over when its slot is returned; what lies
/// beyond is given back to the kernel, under the process's one memory-map lock.
/// Small guests stay within it, and cost no system call; and a thousand warm
/// slots hold 128 MiB by it.
const KEEP_MEMORY: usize = 128 << 10;
const KEEP_TABLE: usize = 64 << 10;

/// Slots that stay with the module that used them last, which makes the next
/// attempt of that module cheap. With the default of 100, 200 activities in
/// turn cost three times as much as with 1,000.
const WARM_SLOTS: u32 = 1_000;

/// Stack of guest code; about a megabyte is what native threads give, and
/// recursive parsers want.
const WASM_STACK: usize = 1 << 20;
/// The fiber's stack holds the guest's and that of host calls above it.
const FIBER_STACK: usize = 2 << 20;

/// Frames of a trap's backtrace: endless recursion would fill the message.
const BACKTRACE_FRAMES: NonZeroUsize = NonZeroUsize::new(16).expect("16 is not 0");

/// How often attempts that run side by side on one thread take turns. Costs
/// 0.2 % of a core while anything runs.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// Ticks without an attempt after which the ticker sleeps: short enough that an
/// idle server is idle, long enough that a busy one never wakes it.
const IDLE_TICKS: u32 = 100;

/// The settings that compiler and runtime must share.
fn base_config() -> Config {
    let mut config = Config::new();
    config
        .consume_fuel(true)
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::Speed)
        // Same input, same bytes, on every machine.
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        // Not compiled in, or off: threads, shared memory, GC, 64-bit memories.
        // One memory a module is what a slot of the pool holds.
        .wasm_multi_memory(false)
        .wasm_memory64(false)
        .wasm_component_model(true)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(FIBER_STACK)
        // Compiled code writes every local and spill slot before it reads it,
        // so what an earlier attempt left on a stack cannot be seen. Zeroing
        // it all the same takes a system call and an interrupt of every core
        // at each attempt: two fifths of what a small one costs.
        .async_stack_zeroing(false)
        .memory_init_cow(true)
        .wasm_backtrace_max_frames(Some(BACKTRACE_FRAMES));
    config
}

/// The engine of the compiler process: it never runs anything.
pub(super) fn compiler_engine() -> wasmtime::Result<Engine> {
    Engine::new(&base_config())
}

/// The engine that runs attempts.
pub(super) fn runtime_engine(slots: u32) -> wasmtime::Result<Engine> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(slots)
        .total_core_instances(slots.saturating_mul(MAX_CORE_INSTANCES))
        .total_memories(slots)
        .total_tables(slots * TABLES_PER_SLOT)
        .total_stacks(slots)
        .max_memories_per_component(MAX_SLOTS_PER_ATTEMPT)
        .max_core_instances_per_component(MAX_CORE_INSTANCES)
        .max_tables_per_component(MAX_SLOTS_PER_ATTEMPT * TABLES_PER_SLOT)
        .max_memories_per_module(1)
        .max_tables_per_module(TABLES_PER_SLOT)
        .table_elements(TABLE_ELEMENTS)
        .max_unused_warm_slots(WARM_SLOTS)
        .linear_memory_keep_resident(KEEP_MEMORY)
        .table_keep_resident(KEEP_TABLE)
        // The kernel's scan for dirty pages would clear less. But it does not
        // report a page as present that is swapped out, or just being moved by
        // compaction: wasmtime would take it for clean, and the next attempt in
        // the slot, of whatever tenant, would find what the last one wrote.
        .pagemap_scan(Enabled::No);
    let mut config = base_config();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config)
}

/// Ticks an engine's epoch while attempts run, so that a long loop gives way to
/// the other attempts of its thread. Sleeps when nothing runs.
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
    handle: Option<JoinHandle<()>>,
}

struct Shared {
    running: AtomicUsize,
    parked: AtomicBool,
    stop: AtomicBool,
}

impl Ticker {
    pub(super) fn start(engine: Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            running: AtomicUsize::new(0),
            parked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let handle = std::thread::Builder::new()
            .name("sandbox-tick".into())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.tick(&engine)
            })?;
        Ok(Self {
            shared,
            thread: handle.thread().clone(),
            handle: Some(handle),
        })
    }

    /// Ticks at least until the guard is dropped.
    pub(super) fn running(&self) -> Running<'_> {
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        if self.shared.parked.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Running(&self.shared)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.thread.unpark();
        if let Some(handle) = self.handle.take() {
            // The thread runs nothing that could panic.
            let _ = handle.join();
        }
    }
}

/// An attempt runs.
pub(super) struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Shared {
    fn tick(&self, engine: &Engine) {
        let mut idle = 0;
        while !self.stop.load(Ordering::SeqCst) {
            if self.running.load(Ordering::SeqCst) > 0 {
                idle = 0;
                engine.increment_epoch();
            } else {
                idle += 1;
            }
            if idle < IDLE_TICKS {
                std::thread::park_timeout(TICK);
                continue;
            }
            // Announce first, then look again: an attempt that starts in
            // between either sees the announcement or is seen here.
            self.parked.store(true, Ordering::SeqCst);
            if self.running.load(Ordering::SeqCst) == 0 && !self.stop.load(Ordering::SeqCst) {
                std::thread::park();
            }
            self.parked.store(false, Ordering::SeqCst);
            idle = 0;
        }
    }
}
