//! C layouts that cross Stanchion's backend boundary, version 1.0.
//!
//! A backend library exports one constant data symbol per backend, `stanchion_backend_<name>`, of type [`Backend`].
//! Only these structs of integers and pointers cross the boundary, and JSON messages in [`Slice`]s.
//! `include/stanchion_backend.h` declares the same for C.
//!
//! # Rules
//! - Memory never changes its owner: a slice is borrowed for the call that passes it, both ways.
//! - For each `start` the backend calls `done` exactly once, and before it `item` any number of times, never two at
//!   once.
//! - No function blocks, and none unwinds.
//! - Structs grow at the end only; readers check `size`.
#![no_std]

use core::ffi::c_void;

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("Stanchion's backend boundary is defined for 64-bit Linux");

/// Magic number: `STANCHN\0`, little endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"STANCHN\0");
/// Major version; both sides must have the same one.
pub const MAJOR: u16 = 1;
/// Minor version; informational.
pub const MINOR: u16 = 0;
/// Bit of [`Backend::flags`]: panics unwind in the library, so that they can be caught.
pub const FLAG_UNWINDS: u64 = 1;
/// Prefix of every descriptor symbol.
pub const SYMBOL_PREFIX: &str = "stanchion_backend_";

/// Numbers of the methods; they never change.
#[allow(missing_docs, reason = "the names are those of the trait Runtime")]
pub mod method {
    pub const VERSION: u32 = 1;
    pub const PULL_IMAGE: u32 = 2;
    pub const LIST_IMAGES: u32 = 3;
    pub const REMOVE_IMAGE: u32 = 4;
    pub const CREATE_SANDBOX: u32 = 5;
    pub const STOP_SANDBOX: u32 = 6;
    pub const REMOVE_SANDBOX: u32 = 7;
    pub const CREATE_CONTAINER: u32 = 8;
    pub const START_CONTAINER: u32 = 9;
    pub const STOP_CONTAINER: u32 = 10;
    pub const REMOVE_CONTAINER: u32 = 11;
    pub const LIST: u32 = 12;
    pub const STATS: u32 = 13;
    pub const EXEC: u32 = 14;
    pub const LOGS: u32 = 15;
    pub const EVENTS: u32 = 16;
    pub const RESIZE_EXEC: u32 = 17;
    pub const IMPORT_IMAGES: u32 = 18;
    pub const LIST_POD: u32 = 19;
    pub const INSPECT_IMAGE: u32 = 20;
    pub const HEALTH: u32 = 21;
    pub const REMOVE_UNUSED_IMAGE: u32 = 22;
    pub const IMAGE_STORE: u32 = 23;
    pub const DISK_USAGE: u32 = 24;
}

/// Borrowed bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    /// Pointer to the first byte; may be null when `len` is 0.
    pub ptr: *const u8,
    /// Number of bytes.
    pub len: usize,
}

/// Callbacks for a call's answers.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    /// Host's context, passed to both callbacks; `done` releases it.
    pub ctx: *mut c_void,
    /// Callback for one item of a stream. Returns 0 to go on, 1 when nobody listens any more.
    pub item: Option<unsafe extern "C" fn(ctx: *mut c_void, item: Slice) -> u32>,
    /// Callback for the end: code 0 with the answer, else the number of an error kind with
    /// `{message, causes, retry_after_ms?}`.
    pub done: Option<unsafe extern "C" fn(ctx: *mut c_void, code: u32, body: Slice)>,
}

/// One call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Size of this struct, bytes.
    pub size: u32,
    /// Number of the method; see [`method`].
    pub method: u32,
    /// Identifies the call in `cancel`; unique, never 0.
    pub id: u64,
    /// Time until the host gives up, ms from now; 0 is never. Informational.
    pub deadline_ms: u64,
    /// Request, JSON.
    pub request: Slice,
    /// File descriptors; the backend owns them from the moment `start` is entered. −1 stands for none.
    pub fds: *const i32,
    /// Number of descriptors.
    pub fd_count: usize,
    /// Callbacks for the answers.
    pub reply: Reply,
}

/// Functions that the host offers a backend. Lives as long as the process.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// Size of this struct, bytes.
    pub size: u32,
    /// Minor version of the host.
    pub minor: u16,
    /// Reserved; zero.
    pub reserved: u16,
    /// Host's context, passed to both functions.
    pub ctx: *mut c_void,
    /// Returns whether the host would keep a log record of this level (1 error … 5 trace) and target.
    pub enabled: Option<unsafe extern "C" fn(ctx: *mut c_void, level: u32, target: Slice) -> u32>,
    /// Writes a log record: a JSON object with `message`. `call` is the ID of the call that it belongs to, or 0.
    pub log: Option<unsafe extern "C" fn(ctx: *mut c_void, level: u32, call: u64, target: Slice, record: Slice)>,
}

/// Opens a backend with `OpenRequest` as JSON. Returns a handle at once; `done` reports when it is ready. Null means
/// that `done` has been called with the reason.
pub type Open = unsafe extern "C" fn(host: *const Host, request: Slice, reply: Reply) -> *mut c_void;
/// Starts a call.
pub type Start = unsafe extern "C" fn(backend: *mut c_void, call: *const Call);
/// Cancels a call. The backend still calls its `done`.
pub type Cancel = unsafe extern "C" fn(backend: *mut c_void, id: u64);
/// Closes a handle. The backend calls this reply's `done` last.
pub type Close = unsafe extern "C" fn(backend: *mut c_void, reply: Reply);

/// A backend's descriptor: the exported symbol.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Backend {
    /// [`MAGIC`]
    pub magic: u64,
    /// Size of this struct, bytes.
    pub size: u32,
    /// [`MAJOR`]
    pub major: u16,
    /// [`MINOR`]
    pub minor: u16,
    /// [`FLAG_UNWINDS`]; others are ignored.
    pub flags: u64,
    /// Name, `[a-z][a-z0-9_]{0,31}`, as in the symbol and in the configuration.
    pub name: Slice,
    /// Version of the library.
    pub version: Slice,
    /// Builder of the library, e.g. the SDK with its version; informational.
    pub built_by: Slice,
    /// Opens the backend.
    pub open: Option<Open>,
    /// Starts a call.
    pub start: Option<Start>,
    /// Cancels a call.
    pub cancel: Option<Cancel>,
    /// Closes the backend.
    pub close: Option<Close>,
}

impl Slice {
    /// Empty slice.
    pub const EMPTY: Self = Self { ptr: core::ptr::null(), len: 0 };

    /// Makes a slice that borrows `bytes`.
    #[must_use]
    pub const fn new(bytes: &[u8]) -> Self {
        Self { ptr: bytes.as_ptr(), len: bytes.len() }
    }

    /// Returns the bytes.
    ///
    /// # Safety
    /// The memory must be readable and unchanged for as long as the result is used.
    #[must_use]
    #[allow(unsafe_code, reason = "the boundary")]
    pub const unsafe fn bytes<'a>(self) -> &'a [u8] {
        if self.ptr.is_null() || self.len == 0 {
            return &[];
        }
        // SAFETY: not null, and the caller vouches for the rest.
        unsafe { core::slice::from_raw_parts(self.ptr, self.len) }
    }
}

// SAFETY: a descriptor is constant data; its pointers are to functions and to static text.
#[allow(unsafe_code, reason = "the boundary")]
unsafe impl Sync for Backend {}
// SAFETY: as above.
#[allow(unsafe_code, reason = "the boundary")]
unsafe impl Send for Backend {}

/// The layout is the contract: these assertions check it at compile time.
const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<Slice>() == 16 && offset_of!(Slice, len) == 8);
    assert!(size_of::<Reply>() == 24 && offset_of!(Reply, item) == 8 && offset_of!(Reply, done) == 16);
    assert!(size_of::<Call>() == 80 && offset_of!(Call, method) == 4 && offset_of!(Call, id) == 8);
    assert!(offset_of!(Call, deadline_ms) == 16 && offset_of!(Call, request) == 24 && offset_of!(Call, fds) == 40);
    assert!(offset_of!(Call, fd_count) == 48 && offset_of!(Call, reply) == 56);
    assert!(size_of::<Host>() == 32 && offset_of!(Host, ctx) == 8 && offset_of!(Host, log) == 24);
    assert!(size_of::<Backend>() == 104 && offset_of!(Backend, flags) == 16 && offset_of!(Backend, name) == 24);
    assert!(offset_of!(Backend, version) == 40 && offset_of!(Backend, built_by) == 56);
    assert!(offset_of!(Backend, open) == 72 && offset_of!(Backend, start) == 80);
    assert!(offset_of!(Backend, cancel) == 88 && offset_of!(Backend, close) == 96);
};
// SAFETY: the host's struct is constant; its functions may be called from any thread, which is part of the contract.
#[allow(unsafe_code, reason = "the boundary")]
unsafe impl Sync for Host {}
// SAFETY: as above.
#[allow(unsafe_code, reason = "the boundary")]
unsafe impl Send for Host {}
