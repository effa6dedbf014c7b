//! Connection to one containerd, in one containerd namespace.

use std::{path::Path, sync::Arc, time::Duration};

use containerd_client::{
    services::v1::{
        containers_client::ContainersClient, content_client::ContentClient, diff_client::DiffClient,
        events_client::EventsClient, images_client::ImagesClient, introspection_client::IntrospectionClient,
        leases_client::LeasesClient, namespaces_client::NamespacesClient, snapshots::snapshots_client::SnapshotsClient,
        tasks_client::TasksClient, version_client::VersionClient,
    },
    tonic::{
        Code, Request, Status,
        metadata::{Ascii, MetadataValue},
        transport::{Channel, Endpoint, Uri},
    },
};
use hyper_util::rt::TokioIo;
use stanchion_sdk::runtime::{Error, ErrorKind};
use tokio::net::UnixStream;

/// Largest answer, bytes: `List` answers grow with the node, and the generated clients stop at 4 MB.
const MAX_MESSAGE: usize = 64 << 20;

/// Handle on containerd's services. Cheap to clone; the channel reconnects by itself when containerd returns.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    namespace: MetadataValue<Ascii>,
    lease: Option<MetadataValue<Ascii>>,
}

macro_rules! service {
    ($(#[$doc:meta])* $name:ident, $client:ident) => {
        $(#[$doc])*
        pub fn $name(&self) -> $client<Channel> {
            $client::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
        }
    };
}

impl Client {
    /// Makes a client that connects on its first call: an absent containerd fails that call, not the agent's start.
    ///
    /// # Errors
    /// `Invalid` when `namespace` cannot be sent as a header.
    pub fn new(socket: &Path, namespace: &str) -> Result<Self, Error> {
        let namespace = namespace.parse().map_err(|error| {
            Error::new(ErrorKind::Invalid, format!("containerd namespace {namespace:?} is not a valid name"))
                .caused_by(&error)
        })?;
        let path: Arc<Path> = socket.into();
        let target = Arc::clone(&path);
        let connector = tower::service_fn(move |_: Uri| {
            let target = Arc::clone(&target);
            async move {
                let connected = UnixStream::connect(&*target).await;
                connected.map(TokioIo::new).map_err(|error| {
                    let path = target.display();
                    std::io::Error::new(error.kind(), format!("containerd does not answer at {path}: {error}"))
                })
            }
        });
        let channel = Endpoint::from_static("http://localhost")
            .connect_timeout(Duration::from_secs(5))
            .connect_with_connector_lazy(connector);
        Ok(Self { channel, namespace, lease: None })
    }

    /// Returns the same connection under a lease, which keeps what it creates from garbage collection while the lease
    /// exists.
    #[must_use]
    pub fn with_lease(&self, lease: MetadataValue<Ascii>) -> Self {
        Self { lease: Some(lease), ..self.clone() }
    }

    /// Returns the namespace that every call names.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.namespace.to_str().expect("parsed from a str in `new`")
    }

    /// Wraps `message` in a request with the headers that every call needs.
    #[must_use]
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let headers = request.metadata_mut();
        headers.insert("containerd-namespace", self.namespace.clone());
        if let Some(lease) = &self.lease {
            headers.insert("containerd-lease", lease.clone());
        }
        request
    }

    service! {
        /// Container records.
        containers, ContainersClient
    }
    service! {
        /// The content store: blobs by digest.
        content, ContentClient
    }
    service! {
        /// Diff service, which applies layers to snapshots.
        diff, DiffClient
    }
    service! {
        /// Events: to publish and to receive.
        events, EventsClient
    }
    service! {
        /// Image names.
        images, ImagesClient
    }
    service! {
        /// Introspection: the daemon's plugins and their settings.
        introspection, IntrospectionClient
    }
    service! {
        /// Leases against garbage collection.
        leases, LeasesClient
    }
    service! {
        /// Namespaces.
        namespaces, NamespacesClient
    }
    service! {
        /// Snapshots: root file systems and their layers.
        snapshots, SnapshotsClient
    }
    service! {
        /// Running containers.
        tasks, TasksClient
    }

    /// Returns the client for the daemon's version. Not size-limited: the answer is two words.
    pub fn version(&self) -> VersionClient<Channel> {
        VersionClient::new(self.channel.clone())
    }
}

/// Converts a failed gRPC call into the contract's error; `tried` names the action and its object.
pub fn failed(tried: impl Into<String>, status: &Status) -> Error {
    let kind = match status.code() {
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::FailedPrecondition => ErrorKind::Conflict,
        Code::Unavailable => ErrorKind::Unavailable,
        Code::InvalidArgument => ErrorKind::Invalid,
        Code::PermissionDenied | Code::Unauthenticated => ErrorKind::Permission,
        Code::DeadlineExceeded => ErrorKind::Timeout,
        Code::Unimplemented => ErrorKind::Unsupported,
        Code::Cancelled => ErrorKind::Cancelled,
        _ => ErrorKind::Other,
    };
    let error = Error::new(kind, tried).because(status.message());
    // A failed connection names its socket and cause in its source.
    match std::error::Error::source(status) {
        Some(source) => error.caused_by(source),
        None => error,
    }
}

/// Returns whether a call failed only because its object no longer exists.
#[must_use]
pub fn is_gone(status: &Status) -> bool {
    status.code() == Code::NotFound
}
