//! A server on the loopback, for tests.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer},
};

/// Server that gives each client the next of its answers, and repeats the last one.
pub(crate) struct Server {
    pub port: u16,
    requests: Arc<Mutex<Vec<String>>>,
    names: Arc<Mutex<Vec<Option<String>>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    pub async fn start(answers: Vec<String>) -> Self {
        Self::with(Ipv4Addr::LOCALHOST.into(), answers, None).await
    }

    /// Starts a server that speaks TLS, with this certificate and its key, in DER.
    pub async fn secured(answers: Vec<String>, certificate: (&'static [u8], &'static [u8])) -> Self {
        Self::secured_at(Ipv4Addr::LOCALHOST.into(), answers, certificate).await
    }

    /// Starts a server that speaks TLS on this address of the loopback.
    pub async fn secured_at(
        address: IpAddr,
        answers: Vec<String>,
        (certificate, key): (&'static [u8], &'static [u8]),
    ) -> Self {
        let key = PrivateKeyDer::try_from(key).expect("it is a key");
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("it has some")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.into()], key)
            .expect("they belong together");
        Self::with(address, answers, Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn with(address: IpAddr, answers: Vec<String>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind((address, 0)).await.expect("a port is free");
        let port = listener.local_addr().expect("it has an address").port();
        let (requests, names) = (Arc::default(), Arc::<Mutex<Vec<_>>>::default());
        let (recorded, named, mut tasks) = (Arc::clone(&requests), Arc::clone(&names), JoinSet::new());
        tasks.spawn(async move {
            for number in 0.. {
                let (stream, _) = listener.accept().await.expect("it is called");
                let answer = &answers[number.min(answers.len() - 1)];
                match &tls {
                    None => serve(stream, answer, &recorded).await,
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => {
                            let name = stream.get_ref().1.server_name().map(str::to_owned);
                            named.lock().expect("nobody panicked").push(name);
                            serve(stream, answer, &recorded).await;
                        }
                        // A client that does not accept the certificate closes the connection.
                        Err(_) => continue,
                    },
                }
            }
        });
        Self { port, requests, names, _tasks: tasks }
    }

    pub fn url(&self, rest: &str) -> String {
        format!("http://127.0.0.1:{}{rest}", self.port)
    }

    /// Returns the name that each TLS client gave to the server (SNI).
    pub fn names(&self) -> Vec<Option<String>> {
        self.names.lock().expect("nobody panicked").clone()
    }

    /// Returns the requests so far, in lower case.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("nobody panicked").clone()
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &str, requests: &Mutex<Vec<String>>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_buf(&mut request).await {
            Ok(read) if read > 0 => {}
            _ => return,
        }
    }
    requests.lock().expect("nobody panicked").push(String::from_utf8_lossy(&request).to_lowercase());
    // A client that has read enough closes the connection.
    drop(stream.write_all(answer.as_bytes()).await);
    drop(stream.shutdown().await);
}
