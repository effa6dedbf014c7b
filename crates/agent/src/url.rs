//! Addresses of HTTP servers.

use std::{fmt, str::FromStr};

use hyper::Uri;

/// URL of a request. The query may be a secret: it is sent, and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    pub(crate) is_https: bool,
    /// Name or address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Path and query.
    pub(crate) target: String,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let no_url = || "it must begin with http:// or https:// and name a host".to_owned();
        let uri: Uri = text.parse().map_err(|_| no_url())?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("it holds a name or password, which would be shown; set headers instead".to_owned());
        }
        Self::of(&uri).ok_or_else(no_url)
    }
}

impl Url {
    fn of(uri: &Uri) -> Option<Self> {
        let is_https = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let host = uri.host()?.trim_matches(['[', ']']).to_owned();
        let target = uri.path_and_query().map_or("", |target| target.as_str());
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        let port = uri.port_u16().unwrap_or(default_port(is_https));
        (!host.is_empty()).then_some(Self { is_https, host, port, target })
    }

    /// Returns host and port as in the `Host` header.
    pub(crate) fn authority(&self) -> String {
        match self.port == default_port(self.is_https) {
            true if self.host.contains(':') => format!("[{}]", self.host),
            true => self.host.clone(),
            false => join(&self.host, self.port),
        }
    }

    /// Returns whether both URLs are of one server.
    pub(crate) fn is_beside(&self, other: &Self) -> bool {
        (self.is_https, &self.host, self.port) == (other.is_https, &other.host, other.port)
    }

    /// Returns the target of a redirect from here; `None` if `location` cannot be parsed.
    pub(crate) fn redirected(&self, location: &str) -> Option<Self> {
        let location = location.split('#').next().unwrap_or_default();
        let (path, query) = location.split_once('?').map_or((location, None), |(path, query)| (path, Some(query)));
        let own = self.target.split('?').next().unwrap_or_default();
        if path.contains("://") || path.starts_with("//") {
            let scheme = if path.starts_with("//") { self.scheme() } else { "" };
            let separator = if scheme.is_empty() { "" } else { ":" };
            return Self::of(&format!("{scheme}{separator}{location}").parse().ok()?);
        }
        let path = match path {
            "" => own.to_owned(),
            path if path.starts_with('/') => path.to_owned(),
            path => format!("{}/{path}", own.rsplit_once('/').map_or("", |(directory, _)| directory)),
        };
        let target = query.map_or(path.clone(), |query| format!("{path}?{query}"));
        target.parse::<Uri>().is_ok().then(|| Self { target, ..self.clone() })
    }

    /// Returns the whole URL, to compare it with others. It must not be shown.
    pub(crate) fn whole(&self) -> String {
        format!("{}://{}{}", self.scheme(), self.authority(), self.target)
    }

    fn scheme(&self) -> &'static str {
        if self.is_https { "https" } else { "http" }
    }
}

fn default_port(is_https: bool) -> u16 {
    if is_https { 443 } else { 80 }
}

/// Returns `host:port`, with brackets around an IPv6 address.
pub(crate) fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, rest) = self.target.split_once('?').map_or((&*self.target, ""), |(path, _)| (path, "?…"));
        write!(f, "{}://{}{path}{rest}", self.scheme(), self.authority())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::Url;

    fn url(text: &str) -> Url {
        text.parse().expect("it is one")
    }

    #[test]
    fn an_address_is_shown_without_what_may_be_secret() {
        for (text, shown) in [
            ("https://a.example/pods?token=x", "https://a.example/pods?…"),
            ("http://[::1]:8080", "http://[::1]:8080/"),
            ("https://a.example:443/x", "https://a.example/x"),
            ("http://a.example:443/x", "http://a.example:443/x"),
        ] {
            assert_eq!(url(text).to_string(), shown, "I10");
            assert_eq!(format!("{:?}", url(text)), shown, "I10");
        }
        assert_eq!(url("https://[::1]/x?y").whole(), "https://[::1]/x?y");
        for wrong in ["https://user:secret@a.example/", "ftp://a.example/", "a.example", "/pods", "https:///x", ""] {
            let error = wrong.parse::<Url>().expect_err(wrong);
            assert!(!error.contains("secret"), "I10: {error}");
        }
    }

    #[test]
    fn redirects_are_read_from_where_they_are() {
        let from = url("https://a.example:8443/dir/pods?x=1");
        for (location, to) in [
            ("/there?y=2", "https://a.example:8443/there?y=2"),
            ("there#part", "https://a.example:8443/dir/there"),
            ("?y=2", "https://a.example:8443/dir/pods?y=2"),
            ("//b.example/x", "https://b.example/x"),
            ("http://b.example:81?u=http://c", "http://b.example:81/?u=http://c"),
            ("/login?back=https://c/x", "https://a.example:8443/login?back=https://c/x"),
        ] {
            assert_eq!(from.redirected(location).map(|url| url.whole()), Some(to.to_owned()), "R-HTTP-9: {location}");
        }
        assert_eq!(from.redirected("ftp://b.example/"), None);
        assert!(from.redirected("/there").is_some_and(|there| there.is_beside(&from)));
        assert!(!url("http://a.example:8443/").is_beside(&from));
    }
}
