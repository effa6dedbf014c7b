//! Writes a container's output as CRI log files.
//!
//! containerd's shim starts one for every container (`binary://` in the task's stdout and stderr) as
//! `stanchion-logger log PATH [max-size BYTES] [max-files N] [input PIPE]`, with the container's stdout on descriptor 3, its stderr
//! on 4, and a pipe on 5 that is closed to say "ready": the container starts only then. It outlives agent and containerd
//! and is never restarted, and when it is gone the container's writes fail. So it ends only when both streams have
//! ended, and whatever happens to the disk, it goes on reading.
//!
//! # Layout
//! - `arguments`: what it is started with.
//! - `inherited`: descriptors and signals, as the shim leaves them. The only `unsafe`.
//! - `stream`: reads one stream and frames its lines.
//! - `log`: the file: appending, rotation, lines that were lost.
//! - `rotation`: names of rotated files, and which of them go.
//! - `utc`: the time of day in the two forms that are needed.

mod arguments;
mod inherited;
mod log;
mod rotation;
mod stream;
mod utc;

use std::{
    env,
    fs::File,
    io::{self, Read},
    process::ExitCode,
    sync::Mutex,
    thread,
};

use self::{
    arguments::Arguments,
    inherited::Inherited,
    log::Log,
    stream::{Name, Stream},
};

/// A stream's thread reads and writes buffers that are made before; it needs hardly any stack.
const STACK: usize = 64 * 1024;

fn main() -> ExitCode {
    inherited::ignore_signals();
    let Inherited { stdout, stderr, ready } = match Inherited::take() {
        Ok(inherited) => inherited,
        Err(error) => {
            eprintln!("stanchion-logger: {error}; it is started by containerd's shim, see binary:// logging there");
            return ExitCode::from(2);
        }
    };
    let arguments = match Arguments::parse(env::args_os().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("stanchion-logger: {error}");
            // The shim takes our end for readiness; the container shall run, if without a log.
            drop(ready);
            both(move || drain(stdout), move || drain(stderr));
            return ExitCode::from(2);
        }
    };
    // Both ways, so that it does not wait for another end; held to the container's own.
    let _input = arguments.input.as_ref().and_then(|path| match File::options().read(true).write(true).open(path) {
        Ok(pipe) => Some(pipe),
        Err(error) => {
            eprintln!("stanchion-logger: holding {} open: {error}", path.display());
            None
        }
    });
    let log = Mutex::new(Log::new(arguments));
    log::lock(&log).open();
    drop(ready);
    let (stdout, stderr) = (Stream::new(Name::Stdout, stdout), Stream::new(Name::Stderr, stderr));
    // What waits in both already is most likely to have come in this order.
    both(|| stderr.run(&log), || stdout.run(&log));
    log::lock(&log).finish();
    ExitCode::SUCCESS
}

/// Runs one on a thread of its own, and the other here, to the end of both.
fn both(one: impl FnOnce() + Send, other: impl FnOnce()) {
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, one);
        other();
        // Without a thread there is nothing to read the one stream with; the shim sees it close.
        if let Err(error) = thread {
            eprintln!("stanchion-logger: no thread for one of the streams: {error}");
        }
    });
}

fn drain(mut stream: impl Read) {
    if let Err(error) = io::copy(&mut stream, &mut io::sink()) {
        eprintln!("stanchion-logger: reading the container's output: {error}");
    }
}
