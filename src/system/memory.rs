//! Memory that forked children see in another way than other memory.

use std::io;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::AtomicU64;

use nix::libc::c_void;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

const PAGE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);

/// Maps zeroed memory, readable and writable.
fn map(length: NonZeroUsize, flags: MapFlags) -> io::Result<NonNull<c_void>> {
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
    Ok(unsafe { mmap_anonymous(None, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags) }?)
}

/// A page for secrets: forked children find zeros in it (`MADV_WIPEONFORK` in `madvise(2)`).
#[derive(Debug)]
pub struct WipeOnForkPage(NonNull<c_void>);

impl WipeOnForkPage {
    /// Maps a page of zeros.
    ///
    /// # Errors
    /// ENOMEM; EINVAL from a kernel before 4.14.
    pub fn new() -> io::Result<Self> {
        let page = Self(map(PAGE, MapFlags::MAP_PRIVATE)?);
        // SAFETY: the mapping is ours, private and anonymous, as this advice demands; it changes only what a child sees.
        unsafe { madvise(page.0, PAGE.get(), MmapAdvise::MADV_WIPEONFORK) }?;
        Ok(page)
    }
}

impl Deref for WipeOnForkPage {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping has that many bytes, all initialised, and lives as long as `self`.
        unsafe { slice::from_raw_parts(self.0.as_ptr().cast(), PAGE.get()) }
    }
}

impl DerefMut for WipeOnForkPage {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; and `self` is borrowed mutably, so there is no other borrow.
        unsafe { slice::from_raw_parts_mut(self.0.as_ptr().cast(), PAGE.get()) }
    }
}

impl Drop for WipeOnForkPage {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no borrow of it outlives `self`.
        unsafe { munmap(self.0, PAGE.get()) }.unwrap_or_default();
    }
}

/// `N` numbers that forked children share with their parent, without a lock. Any of these processes may write any number
/// at any time, so nothing may depend on them.
#[derive(Debug)]
pub struct SharedWords<const N: usize>(NonNull<AtomicU64>);

impl<const N: usize> SharedWords<N> {
    const LENGTH: NonZeroUsize = NonZeroUsize::MIN.saturating_add(N * size_of::<AtomicU64>());

    /// Maps the numbers, all 0.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn new() -> io::Result<Self> {
        Ok(Self(map(Self::LENGTH, MapFlags::MAP_SHARED)?.cast()))
    }

    /// The numbers.
    pub fn all(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has room for N of them, is page-aligned and lives as long as `self`. Zeros are valid, and so
        // is whatever another process writes.
        unsafe { slice::from_raw_parts(self.0.as_ptr(), N) }
    }
}

impl<const N: usize> Drop for SharedWords<N> {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no borrow of it outlives `self`. Other processes keep theirs.
        unsafe { munmap(self.0.cast(), Self::LENGTH.get()) }.unwrap_or_default();
    }
}
