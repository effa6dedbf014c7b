//! Loads a library, and checks the descriptor that it exports.
#![allow(unsafe_code, reason = "loads code and reads its constants")]

use std::{error::Error as _, path::Path};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use stanchion_abi as abi;
use stanchion_runtime::{Error, ErrorKind};

/// `RTLD_NODELETE`: the library stays loaded, because its threads and thread-locals stay.
const NO_DELETE: i32 = 0x1000;

/// Checked descriptor of a backend.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor(pub &'static abi::Backend);

impl Descriptor {
    pub fn name(self) -> String {
        text(self.0.name)
    }

    pub fn version(self) -> String {
        text(self.0.version)
    }

    pub fn built_by(self) -> String {
        text(self.0.built_by)
    }

    pub fn abi(self) -> (u16, u16) {
        (self.0.major, self.0.minor)
    }
}

fn text(slice: abi::Slice) -> String {
    // SAFETY: a descriptor's texts are constant data of a library that is never unloaded.
    String::from_utf8_lossy(unsafe { slice.bytes() }).into_owned()
}

/// Loads a library and finds the backend of that name in it.
#[expect(clippy::disallowed_methods, reason = "the one place that opens backends")]
pub(crate) fn find(path: &Path, name: &str) -> Result<Descriptor, Error> {
    let tried = || format!("loading {}", path.display());
    // SAFETY: the file's owner and place have been checked; what it runs when loaded is trusted as the agent itself is.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL | NO_DELETE) };
    let library = library.map_err(|error| Error::new(ErrorKind::Invalid, tried()).because(reason(&error)))?;
    let symbol = format!("{}{name}", abi::SYMBOL_PREFIX);
    // SAFETY: only the address is taken here.
    let found = unsafe { library.get::<*const abi::Backend>(symbol.as_bytes()) };
    let address = found.map(|symbol| symbol.into_raw().cast::<abi::Backend>()).map_err(|_| {
        let message =
            format!("it offers no backend {name:?} (no symbol {symbol}); is it a Stanchion backend of that name?");
        Error::new(ErrorKind::Invalid, tried()).because(message)
    })?;
    // Never unloaded: threads and thread-local destructors of the library may outlive any handle.
    std::mem::forget(library);
    // SAFETY: the symbol is at that address for as long as the library is loaded, which is for ever.
    unsafe { check(address, name) }.map_err(|message| Error::new(ErrorKind::Invalid, tried()).because(message))
}

/// Checks a descriptor.
///
/// # Safety
/// `address` is null, or points to constant data of at least 16 bytes that is valid for ever.
pub(crate) unsafe fn check(address: *const abi::Backend, name: &str) -> Result<Descriptor, String> {
    if address.is_null() {
        return Err("its descriptor is null".to_owned());
    }
    // SAFETY: magic, size and major are at fixed places in every version.
    let (magic, size, major) = unsafe { ((*address).magic, (*address).size, (*address).major) };
    if magic != abi::MAGIC {
        return Err("its descriptor does not begin with Stanchion's magic number".to_owned());
    }
    if major != abi::MAJOR {
        return Err(format!("it was built for ABI {major}, this agent has ABI {}; rebuild it", abi::MAJOR));
    }
    if usize::try_from(size).is_ok_and(|size| size < size_of::<abi::Backend>()) {
        return Err(format!("its descriptor has {size} bytes, too few for ABI {major}"));
    }
    // SAFETY: large enough, and constant for ever.
    let backend: &'static abi::Backend = unsafe { &*address };
    if backend.flags & abi::FLAG_UNWINDS == 0 {
        return Err(
            "it was built with panic = \"abort\": a panic in it would end the agent; rebuild it with unwinding"
                .to_owned(),
        );
    }
    if [backend.open.is_none(), backend.start.is_none(), backend.cancel.is_none(), backend.close.is_none()]
        .contains(&true)
    {
        return Err("its descriptor lacks a function".to_owned());
    }
    let descriptor = Descriptor(backend);
    match descriptor.name() {
        own if own == name => Ok(descriptor),
        own => Err(format!("its descriptor is that of backend {own:?}, not {name:?}")),
    }
}

/// Returns the system's error text: libloading's own says only that loading failed.
fn reason(error: &libloading::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}
