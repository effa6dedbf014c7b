//! Writes a container's output as CRI log files.
//!
//! containerd's shim starts one logger for every container (`binary://` in the task's stdout and stderr) as
//! `stanchion-logger log PATH [max-size BYTES] [max-files N] [input PIPE]`. The container's stdout is on descriptor 3,
//! its stderr on 4. The logger closes the pipe on 5 to say "ready"; the container starts only then. The logger outlives
//! agent and containerd, and nothing restarts it; without it, the container's writes fail. So it ends only after both
//! streams have ended, and it goes on reading whatever happens to the disk.
//!
//! # Layout
//! - `arguments`: the command line.
//! - `inherited`: descriptors from the shim, and ignored signals. The only `unsafe`.
//! - `stream`: reads one stream and frames its lines.
//! - `log`: appends to the log file, rotates it and counts lost lines.
//! - `rotation`: names rotated files and removes the oldest.
//! - `utc`: UTC time, as RFC 3339 and for file names.

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

/// Stack of a stream's thread, bytes. The thread's buffers are on the heap, so it needs hardly any stack.
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
            // The container must run even without a log: the closed pipe tells the shim that the logger is ready.
            drop(ready);
            both(move || drain(stdout), move || drain(stderr));
            return ExitCode::from(2);
        }
    };
    // Opened for reading and writing, so that opening does not wait for the other end; held open until the container's
    // output ends.
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

/// Runs `one` on a thread of its own and `other` on this one; returns when both have ended.
fn both(one: impl FnOnce() + Send, other: impl FnOnce()) {
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, one);
        other();
        // Without a thread nothing reads that stream; its pipe is closed.
        if let Err(error) = thread {
            eprintln!("stanchion-logger: cannot start a thread for stderr; it is lost: {error}");
        }
    });
}

fn drain(mut stream: impl Read) {
    if let Err(error) = io::copy(&mut stream, &mut io::sink()) {
        eprintln!("stanchion-logger: reading the container's output: {error}");
    }
}
