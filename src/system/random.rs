//! Random bytes from the kernel (`getrandom(2)`): no `/dev` is needed.

use std::io;

use nix::errno::Errno;
use nix::libc;

/// Fills the buffer, which may have up to 256 bytes: so many come whole or not at all.
///
/// # Errors
/// A kernel before 3.17, or a filter that refuses the call.
pub(crate) fn fill(bytes: &mut [u8]) -> io::Result<()> {
    debug_assert!(bytes.len() <= 256);
    loop {
        // SAFETY: the kernel writes at most `bytes.len()` bytes, all of them into `bytes`.
        let filled = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        match Errno::result(filled) {
            Err(Errno::EINTR) => {}
            filled => return filled.map(drop).map_err(io::Error::from),
        }
    }
}

/// A random number.
///
/// # Errors
/// As [`fill`].
pub(crate) fn number() -> io::Result<u32> {
    let mut bytes = [0; 4];
    fill(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}
