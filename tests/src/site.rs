//! A web server with one page, which can be changed; the server can be stopped and started again.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};

/// Web server with one page, which ends when it is dropped.
#[derive(Debug)]
pub struct Site {
    address: SocketAddr,
    page: Arc<Mutex<Page>>,
    server: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Page {
    status: u16,
    body: String,
    requests: Vec<String>,
    is_over: bool,
}

impl Site {
    /// Serves `body` on a free port.
    ///
    /// # Errors
    /// When there is no port.
    pub fn start(body: &str) -> Result<Self> {
        let page = Page { status: 200, body: body.to_owned(), requests: Vec::new(), is_over: false };
        let mut site = Self { address: ([127, 0, 0, 1], 0).into(), page: Arc::new(Mutex::new(page)), server: None };
        site.resume()?;
        Ok(site)
    }

    /// Returns the address of the page.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/pods", self.address)
    }

    /// Changes status and body of the page.
    pub fn says(&self, status: u16, body: &str) {
        self.with(|page| {
            page.status = status;
            body.clone_into(&mut page.body);
        });
    }

    /// Returns the requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.with(|page| page.requests.clone())
    }

    /// Ends the server.
    pub fn stop(&mut self) {
        let Some(server) = self.server.take() else { return };
        self.with(|page| page.is_over = true);
        // The server checks `is_over` at the next connection.
        drop(TcpStream::connect(self.address));
        drop(server.join());
    }

    /// Starts the server again, at the same address.
    ///
    /// # Errors
    /// When another process has the port.
    pub fn resume(&mut self) -> Result<()> {
        let listener = TcpListener::bind(self.address).with_context(|| format!("listening at {}", self.address))?;
        self.address = listener.local_addr().context("the address of a server")?;
        self.with(|page| page.is_over = false);
        let page = Arc::clone(&self.page);
        self.server = Some(thread::spawn(move || serve(&listener, &page)));
        Ok(())
    }

    fn with<T>(&self, of: impl FnOnce(&mut Page) -> T) -> T {
        of(&mut self.page.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop();
    }
}

fn serve(listener: &TcpListener, page: &Mutex<Page>) {
    for stream in listener.incoming().flatten() {
        if page.lock().unwrap_or_else(PoisonError::into_inner).is_over {
            return;
        }
        // A client that disconnects is no fault.
        drop(answer(stream, page));
    }
}

fn answer(mut stream: TcpStream, page: &Mutex<Page>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let (mut request, mut bytes) = (Vec::new(), [0; 4096]);
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut bytes)? {
            0 => return Ok(()),
            read => request.extend_from_slice(&bytes[..read]),
        }
    }
    let text = {
        let mut page = page.lock().unwrap_or_else(PoisonError::into_inner);
        page.requests.push(String::from_utf8_lossy(&request).into_owned());
        format!("HTTP/1.1 {} As Told\r\nContent-Length: {}\r\n\r\n{}", page.status, page.body.len(), page.body)
    };
    stream.write_all(text.as_bytes())?;
    stream.shutdown(Shutdown::Both)
}
