//! Random bytes from the kernel: see `getrandom(2)`, which needs no `/dev`.

use nix::errno::Errno;
use nix::libc;

use super::retry;

/// Fills a buffer of at most 256 bytes. The kernel gives that many all at once or none.
pub fn fill(bytes: &mut [u8]) -> nix::Result<()> {
    debug_assert!(bytes.len() <= 256);
    // SAFETY: the kernel writes at most `bytes.len()` bytes, all of them into `bytes`.
    retry(|| Errno::result(unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) })).map(drop)
}

/// A random number.
pub fn number() -> nix::Result<u32> {
    let mut bytes = [0; 4];
    fill(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}
