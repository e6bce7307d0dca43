//! Memory mapped apart from other memory, because of what forked children see in it: see `mmap(2)`.

use std::io;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;
use nix::libc::c_void;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

/// A mapping that begins at the start of a page, zeroed, readable and writable.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<c_void>,
    length: NonZeroUsize,
}

impl Mapping {
    /// `flags` say whether forked children share the mapping (`MAP_SHARED`) or get a copy of it (`MAP_PRIVATE`).
    pub fn new(length: usize, flags: MapFlags) -> io::Result<Self> {
        let length = NonZeroUsize::new(length).ok_or(Errno::EINVAL)?;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let start =
            unsafe { mmap_anonymous(None, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags) }?;
        Ok(Self { start, length })
    }

    pub fn start<T>(&self) -> NonNull<T> {
        self.start.cast()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours. Its users own this value, and lend its bytes for no longer than they live. Other
        // processes keep theirs.
        unsafe { munmap(self.start, self.length.get()) }.unwrap_or_default();
    }
}

/// A page for secrets: forked children find zeros in it (`MADV_WIPEONFORK` in `madvise(2)`, since Linux 4.14).
#[derive(Debug)]
pub struct WipeOnForkPage(Mapping);

const PAGE: usize = 4096;

impl WipeOnForkPage {
    pub fn new() -> io::Result<Self> {
        let page = Mapping::new(PAGE, MapFlags::MAP_PRIVATE)?;
        // SAFETY: the mapping is ours, private and anonymous, as this advice demands; it changes only what a child sees.
        unsafe { madvise(page.start, PAGE, MmapAdvise::MADV_WIPEONFORK) }?;
        Ok(Self(page))
    }
}

impl Deref for WipeOnForkPage {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping has that many bytes, all initialised, lives as long as `self`, and is of this process alone.
        unsafe { slice::from_raw_parts(self.0.start().as_ptr(), PAGE) }
    }
}

impl DerefMut for WipeOnForkPage {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; and `self` is borrowed mutably, so there is no other borrow.
        unsafe { slice::from_raw_parts_mut(self.0.start().as_ptr(), PAGE) }
    }
}

/// `N` numbers that forked children share with their parent, without a lock; all 0 at first. Any of these processes may
/// write any number at any time, so nothing may depend on them.
#[derive(Debug)]
pub struct SharedWords<const N: usize>(Mapping);

impl<const N: usize> SharedWords<N> {
    pub fn new() -> io::Result<Self> {
        Ok(Self(Mapping::new(size_of::<[AtomicU64; N]>(), MapFlags::MAP_SHARED)?))
    }
}

impl<const N: usize> Deref for SharedWords<N> {
    type Target = [AtomicU64; N];

    fn deref(&self) -> &[AtomicU64; N] {
        // SAFETY: the mapping has this size, is page-aligned and lives as long as `self`. All bytes are valid numbers,
        // whatever another process writes, and a write at the same time is no race, as they are atomic.
        unsafe { self.0.start().as_ref() }
    }
}
