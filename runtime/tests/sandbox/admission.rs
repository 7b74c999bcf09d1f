//! What may be uploaded, and what an upload is said to be.

use std::fmt::Write as _;

use bytes::Bytes;
use cascade_runtime::sandbox::{
    AdmitError, Capability, Grants, InvalidModule, ModuleKind, digest, is_pure,
};
use proptest::prelude::*;

use super::support::{
    Bed, block_on, fixture, invocation, output, script, tenant, with_elements, with_nested,
};

#[test]
fn an_upload_is_described() {
    block_on(async {
        let bed = Bed::shared();
        for (name, kind, powers) in [
            ("echo", ModuleKind::Handler, &[][..]),
            ("log_line", ModuleKind::Handler, &[]),
            ("clock", ModuleKind::Handler, &[Capability::Clock]),
            ("http_get", ModuleKind::Handler, &[Capability::Http]),
            ("key_value", ModuleKind::Handler, &[Capability::KeyValue]),
            ("command", ModuleKind::Command, &[]), // WASI is virtual, and no power
        ] {
            let wasm = fixture(name);
            let info = bed.admit(wasm.clone()).await;
            assert_eq!(info.kind, kind, "{name}");
            assert_eq!(info.powers, powers.iter().copied().collect(), "{name}");
            assert_eq!(info.digest, digest(&wasm), "{name}");
            assert_eq!(info.size, wasm.len() as u64, "{name}");
            assert!(info.componentized, "{name} is a core module");
            assert!(
                is_pure(&info, &Grants::default()),
                "{name}: a power that is not granted is none"
            );
            let all = Grants {
                capabilities: Capability::ALL.into(),
                ..Grants::default()
            };
            assert_eq!(is_pure(&info, &all), powers.is_empty(), "{name}");
        }
    });
}

async fn refused(wasm: impl Into<Bytes>) -> InvalidModule {
    match Bed::shared().sandbox.admit(&tenant(), wasm.into()).await {
        Err(AdmitError::Invalid(invalid)) => invalid,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn what_is_not_wasm_is_refused_by_name() {
    block_on(async {
        let echo = fixture("echo");
        for (wasm, says) in [
            (&b""[..], "empty"),
            (b"\x7fELF\x02\x01\x01", "precompiled native code (ELF"),
            (b"MZ\x90", "precompiled native code (a Windows program)"),
            (b"(module)", "text format"),
            (b"hello", "magic number"),
            (b"\0asm\x63\0\0\0", "version is unknown"),
            (&echo[..echo.len() / 2], "not valid"),
            (b"\0asm\x01\0\0\0", "exports nothing"),
        ] {
            let message = refused(wasm.to_vec()).await.to_string();
            assert!(message.contains(says), "{says}: {message}");
        }
        let huge = vec![0; cascade_runtime::sandbox::MAX_MODULE_BYTES + 1];
        assert!(matches!(
            refused(huge).await,
            InvalidModule::TooLarge { .. }
        ));
    });
}

#[test]
fn an_artifact_of_our_own_compiler_is_refused_as_an_upload() {
    block_on(async {
        // A real .cwasm, not just its first bytes: this engine would run it.
        let engine = wasmtime::Engine::default();
        let native = engine
            .precompile_component(b"\0asm\x0d\0\x01\0")
            .expect("an empty component");
        assert!(matches!(
            refused(native).await,
            InvalidModule::Precompiled { .. }
        ));
    });
}

#[test]
fn unknown_imports_and_missing_exports_are_refused() {
    block_on(async {
        let missing = refused(fixture("no_export")).await;
        assert_eq!(
            missing,
            InvalidModule::ExportMissing {
                found: "something, memory, cabi_realloc".into()
            }
        );
        // An import that the world does not have cannot be made a component;
        // a component that imports it finds no host for it.
        let message = refused(fixture("unknown_import")).await.to_string();
        assert!(message.contains("wasi:http"), "{message}");
        let component = wat::parse_str(
            r#"(component
                 (import "wasi:http/outgoing-handler@0.2.0" (instance (export "go" (func))))
                 (core module $m (func (export "f")))
                 (core instance $i (instantiate $m))
                 (func $f (canon lift (core func $i "f")))
                 (export "handle" (func $f)))"#,
        );
        match refused(component.expect("valid text")).await {
            InvalidModule::UnknownImport { message } => {
                assert!(message.contains("wasi:http/outgoing-handler"), "{message}");
            }
            other => panic!("{other}"),
        }
    });
}

#[test]
fn a_handle_of_another_type_is_refused() {
    block_on(async {
        let component = wat::parse_str(
            r#"(component
                 (core module $m (func (export "f")))
                 (core instance $i (instantiate $m))
                 (func $f (canon lift (core func $i "f")))
                 (export "handle" (func $f)))"#,
        );
        let invalid = refused(component.expect("valid text")).await;
        assert!(
            matches!(invalid, InvalidModule::ExportMissing { .. }),
            "{invalid}"
        );
    });
}

#[test]
fn a_module_of_100_000_functions_is_refused_at_once() {
    block_on(async {
        let mut text = String::from("(module\n");
        for n in 0..100_000 {
            writeln!(
                text,
                "(func $f{n} (param i32) (result i32) (i32.const {n}))"
            )
            .expect("a String takes it");
        }
        text.push_str("(func (export \"_start\") (drop (call $f99999 (i32.const 1)))))");
        let wasm = wat::parse_str(&text).expect("valid text");
        match refused(wasm).await {
            InvalidModule::TooComplex { message } => {
                assert_eq!(message, "it has 100001 functions, the limit is 60000");
            }
            other => panic!("{other}"),
        }
    });
}

#[test]
fn a_module_of_30_001_passive_elements_is_refused() {
    block_on(async {
        match refused(with_elements(30_001)).await {
            InvalidModule::TooComplex { message } => assert_eq!(
                message,
                "its passive element segments have 30001 elements, the limit is 30000"
            ),
            other => panic!("{other}"),
        }
    });
}

#[test]
fn a_component_that_takes_more_memories_than_an_attempt_may_is_refused() {
    block_on(async {
        match refused(with_nested("noop", "nested_memory", 16)).await {
            InvalidModule::TooComplex { message } => {
                assert!(message.contains("17 Wasm linear memories"), "{message}");
            }
            other => panic!("{other}"),
        }
    });
}

#[test]
fn an_upload_that_is_asked_for_many_times_at_once_is_compiled_once() {
    block_on(async {
        let bed = Bed::new();
        let wasm = fixture("echo");
        let tenant = tenant();
        let uploads = (0..20).map(|_| bed.sandbox.admit(&tenant, wasm.clone()));
        let infos = futures::future::join_all(uploads).await;
        assert!(infos.iter().all(Result::is_ok));
        // One compiler process would have written one artifact; twenty would
        // have replaced it, each a new file.
        let folder = bed.folder.join("artifacts").join(tenant.as_str());
        let written: Vec<_> = std::fs::read_dir(folder).expect("a folder").collect();
        assert_eq!(written.len(), 1);
        let info = infos[0].as_ref().expect("admitted");
        let outcome = bed.sandbox.run(invocation(&info.digest, "1")).await;
        assert_eq!(output(&outcome), "1");
    });
}

#[test]
fn a_module_that_was_refused_is_not_compiled_again() {
    block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        let compiler = script(
            folder.path(),
            &format!("echo once >> {}; exit 1", log.display()),
        );
        let bed = Bed::with_compiler(folder.path(), &compiler);
        let mut refusals = Vec::new();
        for _ in 0..3 {
            match bed.sandbox.admit(&tenant(), fixture("echo")).await {
                Err(AdmitError::Invalid(invalid)) => refusals.push(invalid),
                other => panic!("not refused: {other:?}"),
            }
        }
        assert!(refusals.windows(2).all(|pair| pair[0] == pair[1]));
        let runs = std::fs::read_to_string(log).expect("it ran");
        assert_eq!(runs, "once\n");
    });
}

#[test]
fn a_tenant_that_uploads_much_leaves_room_for_others_to_compile() {
    block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let fifo = folder.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.expect("there is a mkfifo").success());
        // What calls itself slow waits for a writer, which never comes.
        let text = format!(
            "case \"$(tr -d '\\0')\" in *slow*) read line < {};; esac; exit 1",
            fifo.display()
        );
        let bed = Bed::with_compiler(folder.path(), &script(folder.path(), &text));
        let (slow, quick) = (tenant(), "other".parse().expect("valid"));
        let cores = std::thread::available_parallelism().expect("known").get();
        let uploads = (0..cores.max(2)).map(|n| {
            let text = format!("(module (@custom \"slow {n}\" \"\"))");
            let wasm = wat::parse_str(text).expect("valid text");
            bed.sandbox.admit(&slow, wasm.into())
        });
        // Dropped, and their compilers killed, once the other tenant's is through.
        tokio::select! {
            biased;
            _ = futures::future::join_all(uploads) => panic!("what is slow ended"),
            quick = bed.sandbox.admit(&quick, fixture("echo")) => {
                assert!(matches!(quick, Err(AdmitError::Invalid(_))), "{quick:?}");
            }
        }
    });
}

#[test]
fn the_compiler_yields_to_everybody_else() {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let mut child = Command::new(env!("CARGO_BIN_EXE_cascade"))
        .arg(cascade_runtime::sandbox::COMPILE_SUBCOMMAND)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    // More than a pipe holds: once it is written, the child has begun to read.
    let stdin = child.stdin.as_mut().expect("it is piped");
    stdin.write_all(&vec![0; 1 << 20]).expect("it reads");
    let read = |file: &str| {
        std::fs::read_to_string(format!("/proc/{}/{file}", child.id())).expect("it runs")
    };
    assert_eq!(read("oom_score_adj").trim(), "1000");
    let stat = read("stat");
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    // The nineteenth field of all, the seventeenth after the name.
    assert_eq!(fields.split_whitespace().nth(16), Some("19"));
    child.kill().expect("it runs");
    child.wait().expect("it ends");
}

proptest! {
    // Each case compiles in a process of its own, some 50 ms.
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 0, ..ProptestConfig::default() })]

    /// Damage anywhere is refused, or leaves a module that ends in some named way.
    #[test]
    fn a_mutated_module_is_refused_or_runs_in_the_sandbox(at in 8_usize..400, byte in any::<u8>()) {
        let mut wasm = fixture("echo").to_vec();
        let at = at % wasm.len();
        wasm[at] = byte;
        block_on(async {
            let bed = Bed::shared();
            match bed.sandbox.admit(&tenant(), wasm.into()).await {
                Ok(info) => {
                    let outcome = bed.sandbox.run(invocation(&info.digest, "{}")).await;
                    if let Err(failure) = outcome.result {
                        prop_assert!(!failure.error.is_empty());
                        prop_assert_ne!(failure.error.as_str(), "HostPanic");
                    }
                }
                Err(AdmitError::Invalid(_)) => {}
                Err(error) => prop_assert!(false, "{error}"),
            }
            Ok(())
        })?;
    }
}
