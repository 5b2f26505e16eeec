//! What a large pack costs once it is compiled. Alone in its program, so that no other test's memory is counted.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use detection::program::Program;
use detection::rules::load_tree;
use detection::sigma::Pipeline;
use support::unpacked;

const RULES_BYTES_MAX: u64 = 150 * 1024 * 1024;

/// Memory of this process that is its own; nothing where the kernel does not tell.
fn memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    let line = text.lines().find(|line| line.starts_with("Private_Dirty:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1_024)
}

/// Processor time of this thread in milliseconds.
fn thread_ms() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split(' ').next()?.parse::<u64>().ok()? / 1_000_000)
}

#[test]
fn a_large_public_pack_fits_into_its_memory() {
    let Some(archive) = unpacked("sigma/sigmahq-rules.tar.gz") else { return };
    let before = memory_bytes();
    let (rules, errors) = load_tree(&archive.path().join("rules"), &Pipeline::default());
    assert!(errors.is_empty(), "{errors:?}");
    let taken = before.zip(memory_bytes()).map(|(before, after)| after.saturating_sub(before));
    let begun = thread_ms();
    let program = Program::compile(rules.rules(), rules.names());
    let compile_ms = begun.zip(thread_ms()).map(|(begun, ended)| ended - begun);
    eprintln!("{:?} bytes, {compile_ms:?} ms to compile, {:?}", taken, program.size());
    assert!(taken.is_none_or(|taken| taken < RULES_BYTES_MAX), "{taken:?}");
    assert!(rules.rules().len() > 3_000);
}
