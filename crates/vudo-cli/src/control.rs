//! The control socket: `vudo` on a store that `vudo serve` holds open.
//!
//! ```text
//! vudo set Task/milk ... --(arguments, folder)--> serve, which has the store
//!                        <--(output, errors, end)--
//! ```
//!
//! A store is open in one process at a time. A command that finds it taken hands its own arguments
//! to the process that has it, which runs the same code and sends back what it printed.
//!
//! The socket lies in the store's folder, which nobody else can enter, and the process that has the
//! store replaces what an earlier one left of it.
//!
//! ```text
//! request  = length (4 bytes, little endian) | JSON {arguments, folder}
//! response = frame*        frame = kind (1 byte) | length (4 bytes) | bytes
//! ```

use std::io::{BufWriter, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Parser;
use serde_json::json;
use vudo_state::Database;

use crate::{Arguments, Command, Context, rights, store};

const SOCKET_NAME: &str = "control.sock";
/// What a request may have in bytes: the arguments of one command.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// How large a piece of output is sent at once.
const FRAME_BYTES_MAX: usize = 64 << 10;
/// Commands that may run at once.
const CLIENTS_MAX: usize = 32;
/// How long a client may take to say what it wants, or to take what it is sent.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

const OUTPUT: u8 = 1;
const ERRORS: u8 = 2;
const SUCCEEDED: u8 = 3;
const FAILED: u8 = 4;

/// Listens until it is dropped, and lets go of the store then.
pub(crate) struct Listening {
    path: PathBuf,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // The thread waits for a client; this one only wakes it.
        if UnixStream::connect(&self.path).is_ok()
            && let Some(thread) = self.thread.take()
        {
            // It only fails where the thread panicked, which its message has told already.
            let _ = thread.join();
        }
        // Whoever opens the store next replaces what is left of it.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Answers commands on a store that this process has open.
pub(crate) fn listen(database: &Database, folder: &Path) -> Result<Listening> {
    let path = folder.join(SOCKET_NAME);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let listener = UnixListener::bind(&path)
        .with_context(|| format!("cannot listen on {}", path.display()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    let database = database.clone();
    let client_count = Arc::new(AtomicUsize::new(0));
    let is_over = Arc::new(AtomicBool::new(false));
    let is_over_for_thread = is_over.clone();
    let thread = std::thread::spawn(move || {
        for client in listener.incoming() {
            if is_over_for_thread.load(Ordering::SeqCst) {
                return;
            }
            let Ok(client) = client else { continue };
            if client_count.fetch_add(1, Ordering::SeqCst) >= CLIENTS_MAX {
                client_count.fetch_sub(1, Ordering::SeqCst);
                continue;
            }
            let (database, client_count) = (database.clone(), client_count.clone());
            std::thread::spawn(move || {
                if let Err(error) = serve_client(&database, client) {
                    eprintln!("a command on the control socket: {error:#}");
                }
                client_count.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    Ok(Listening { path, is_over, thread: Some(thread) })
}

fn serve_client(database: &Database, mut client: UnixStream) -> Result<()> {
    client.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    client.set_write_timeout(Some(CLIENT_TIMEOUT))?;
    let mut length = [0; 4];
    client.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > REQUEST_BYTES_MAX {
        bail!("a request of {length} bytes; at most {REQUEST_BYTES_MAX} are taken");
    }
    let mut request = vec![0; length];
    client.read_exact(&mut request)?;
    let outcome = run_request(database, &request, &client);
    let (kind, message) = match outcome {
        Ok(()) => (SUCCEEDED, String::new()),
        Err(error) => (FAILED, format!("{error:#}")),
    };
    write_frame(&mut client, kind, message.as_bytes())?;
    Ok(())
}

fn run_request(database: &Database, request: &[u8], client: &UnixStream) -> Result<()> {
    let request: serde_json::Value = serde_json::from_slice(request)?;
    let words = request["arguments"].as_array().context("a request without arguments")?;
    let words = words.iter().map(|word| word.as_str().unwrap_or_default());
    let Arguments { context, command } = Arguments::try_parse_from(words)?;
    let folder = PathBuf::from(request["folder"].as_str().unwrap_or_default());
    let Command::Store(command) = command else {
        bail!("this command cannot be run by the process that serves the store");
    };
    let database = rights::resolve(database.clone(), &context.namespace)?;
    let mut output = BufWriter::with_capacity(FRAME_BYTES_MAX, Framed { kind: OUTPUT, client });
    let mut errors = Framed { kind: ERRORS, client };
    store::run(&database, &context, command.in_folder(&folder), &mut output, &mut errors)?;
    output.flush()?;
    Ok(())
}

/// Sends what is written in frames of one kind.
struct Framed<'a> {
    kind: u8,
    client: &'a UnixStream,
}

impl Write for Framed<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let piece = &bytes[..bytes.len().min(FRAME_BYTES_MAX)];
        write_frame(&mut self.client, self.kind, piece)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn write_frame(client: &mut impl Write, kind: u8, bytes: &[u8]) -> std::io::Result<()> {
    let mut frame = vec![kind];
    frame.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    frame.extend_from_slice(bytes);
    client.write_all(&frame)
}

/// Lets the process that has the store run this process's own command. `Ok(false)` where no process
/// listens.
pub(crate) fn forward(context: &Context) -> Result<bool> {
    let arguments: Vec<String> = std::env::args().collect();
    let is_answered = ask(context, &arguments, &mut std::io::stdout())?;
    // A reader that has seen enough, such as `head`, closes the pipe.
    let _ = std::io::stdout().flush();
    Ok(is_answered)
}

/// Lets the process that has the store run a command, whose output goes to `output` and whose errors
/// to standard error. `Ok(false)` where no process listens.
pub(crate) fn ask(context: &Context, arguments: &[String], output: &mut dyn Write) -> Result<bool> {
    let Ok(mut server) = UnixStream::connect(context.store.join(SOCKET_NAME)) else {
        return Ok(false);
    };
    let folder = std::env::current_dir()?;
    let folder = folder.to_str().context("the working folder's name is no text")?;
    let request = json!({ "arguments": arguments, "folder": folder }).to_string();
    if request.len() > REQUEST_BYTES_MAX {
        bail!("the arguments have {} bytes; at most {REQUEST_BYTES_MAX} fit", request.len());
    }
    server.write_all(&(request.len() as u32).to_le_bytes())?;
    server.write_all(request.as_bytes())?;
    loop {
        let mut header = [0; 5];
        let lost = "the process that serves the store ended before it answered";
        server.read_exact(&mut header).context(lost)?;
        let [kind, length @ ..] = header;
        let length = u32::from_le_bytes(length) as usize;
        if length > REQUEST_BYTES_MAX {
            bail!("the process that serves the store sent a frame of {length} bytes");
        }
        let mut bytes = vec![0; length];
        server.read_exact(&mut bytes).context(lost)?;
        match kind {
            OUTPUT => {
                // A reader that has seen enough, such as `head`, closes the pipe.
                if output.write_all(&bytes).is_err() {
                    return Ok(true);
                }
            }
            ERRORS => std::io::stderr().write_all(&bytes)?,
            SUCCEEDED => return Ok(true),
            _ => return Err(anyhow!("{}", String::from_utf8_lossy(&bytes))),
        }
    }
}
