use super::*;
use crate::compile::MEMORY_MB_DEFAULT;
use bytes::Bytes;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

const ECHO: &str = r#"(module (memory (export "memory") 1) (func (export "_start")))"#;

struct World {
    folder: Arc<TempDir>,
    fetched: Arc<AtomicUsize>,
    modules: Arc<ModuleCache>,
}

fn folder() -> Arc<TempDir> {
    Arc::new(tempfile::tempdir().unwrap())
}

fn world(folder: Arc<TempDir>, answer: Result<&'static str, &'static str>) -> World {
    let fetched = Arc::new(AtomicUsize::new(0));
    let count = fetched.clone();
    let fetch: FetchBytes = Arc::new(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            answer
                .map(|text| Bytes::from_static(text.as_bytes()))
                .map_err(|why| FetchError::Remote(why.to_owned()))
        })
    });
    let sandbox = Arc::new(Sandbox::new(2, &folder.path().join("work")).unwrap());
    let modules = ModuleCache::open(
        sandbox,
        &folder.path().join("modules"),
        fetch,
        MEMORY_MB_DEFAULT,
    );
    let modules = Arc::new(modules.unwrap());
    World {
        folder,
        fetched,
        modules,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_fetched_and_compiled_once() {
    let world = world(folder(), Ok(ECHO));
    let version = Hash::of(ECHO.as_bytes());
    assert!(world.modules.ready(&version).is_none());
    let loads: Vec<_> = (0..20)
        .map(|_| {
            let modules = world.modules.clone();
            tokio::spawn(async move { modules.load(version).await.map(|loaded| loaded.compile_us) })
        })
        .collect();
    for load in loads {
        assert!(load.await.unwrap().unwrap() > 0 || world.modules.ready(&version).is_some());
    }
    assert_eq!(world.fetched.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_process_finds_it_on_disk_unless_it_is_spoilt() {
    let first = world(folder(), Ok(ECHO));
    let version = Hash::of(ECHO.as_bytes());
    first.modules.load(version).await.unwrap();
    let second = world(first.folder.clone(), Err("nobody there"));
    assert_eq!(
        second
            .modules
            .load(version)
            .await
            .map(|loaded| loaded.compile_us),
        Ok(0)
    );
    assert_eq!(second.fetched.load(Ordering::SeqCst), 0);

    let file = std::fs::read_dir(first.folder.path().join("modules"))
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    let file = file
        .into_iter()
        .find(|path| {
            path.extension()
                .is_some_and(|extension| extension == "cwasm")
        })
        .unwrap();
    let mut code = std::fs::read(&file).unwrap();
    let middle = code.len() / 2;
    code[middle] ^= 0xff;
    std::fs::write(&file, code).unwrap();
    let third = world(first.folder.clone(), Ok(ECHO));
    assert!(third.modules.load(version).await.unwrap().compile_us > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_told_and_tried_again() {
    for (answer, words) in [
        (Err("the master is gone"), "the master is gone"),
        (Ok("(module"), "line 1 column 8"),
        (Ok("(module)"), "_start"),
        (
            Ok(r#"(module (import "env" "magic" (func)) (func (export "_start")))"#),
            "`env.magic`",
        ),
    ] {
        let world = world(folder(), answer);
        let version = Hash::of(b"x");
        for tries in 1..=2 {
            let error = world.modules.load(version).await.err().unwrap();
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(world.fetched.load(Ordering::SeqCst), tries);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_runner_could_not_compile_is_not_even_fetched() {
    let folder = folder();
    let version = Hash::of(ECHO.as_bytes());
    let first = world(folder.clone(), Ok(ECHO));
    let costly = LoadError::TooCostly(taskmaster_confined::Excess::Memory(3 << 30));
    first.modules.refused.remember(version, &costly);
    let second = world(folder, Ok(ECHO));
    let error = second.modules.load(version).await.err().unwrap();
    assert_eq!(error.to_string(), costly.to_string());
    assert_eq!(second.fetched.load(Ordering::SeqCst), 0);
}
