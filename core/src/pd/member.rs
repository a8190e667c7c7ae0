//! Who belongs to PD, and where they listen.

use std::sync::Arc;

use tikv_proto::pdpb;

/// Where a member listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// `host:port`.
    pub address: Arc<str>,
    /// What its URL says about encryption, if it was a URL.
    pub scheme: Option<Scheme>,
}

/// Whether a URL asks for encryption. It is the client's settings that decide; this is only what PD advertises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// `http`, or any other scheme that is not `https`.
    Plain,
    /// `https`.
    Tls,
}

impl Endpoint {
    /// Reads `host:port` or a URL, of which scheme and path are left away; `None` if there is no address in it.
    ///
    /// ```
    /// use tikv_core::pd::{Endpoint, Scheme};
    ///
    /// let endpoint = Endpoint::parse("https://pd-0:2379/").unwrap();
    /// assert_eq!((&*endpoint.address, endpoint.scheme), ("pd-0:2379", Some(Scheme::Tls)));
    /// assert_eq!(Endpoint::parse("pd-0:2379").unwrap().scheme, None);
    /// ```
    #[must_use]
    pub fn parse(url: &str) -> Option<Endpoint> {
        let (scheme, rest) = match url.trim().split_once("://") {
            Some(("https", rest)) => (Some(Scheme::Tls), rest),
            Some((_, rest)) => (Some(Scheme::Plain), rest),
            None => (None, url.trim()),
        };
        let address = rest.split('/').next().unwrap_or_default();
        (!address.is_empty()).then(|| Endpoint { address: address.into(), scheme })
    }
}

/// A member of PD.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Its id in PD's own quorum.
    pub id: u64,
    /// Its name, for people.
    pub name: String,
    /// Where it listens for clients.
    pub endpoints: Vec<Endpoint>,
}

impl Member {
    pub(super) fn read(member: &pdpb::Member) -> Member {
        Member {
            id: member.member_id,
            name: member.name.clone(),
            endpoints: member.client_urls.iter().filter_map(|url| Endpoint::parse(url)).collect(),
        }
    }

    /// The endpoint to use if `wanted` is how the client was told to connect; the first if none is like that.
    pub(super) fn endpoint(&self, wanted: Option<Scheme>) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.scheme == wanted).or_else(|| self.endpoints.first())
    }
}

/// The member that leads, as long as nothing else is known.
///
/// Each time a leader is found after none was known, a new term begins. A failure counts against the term in which the
/// request was sent: of many requests that fail together, the first one ends the term and the others are too late.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Leader {
    pub(super) address: Arc<str>,
    pub(super) term: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str) -> Option<String> {
        Endpoint::parse(url).map(|endpoint| endpoint.address.to_string())
    }

    #[test]
    fn scheme_and_path_of_a_url_are_left_away() {
        for url in ["pd:2379", "http://pd:2379", "https://pd:2379/", " http://pd:2379/path ", "mock://pd:2379"] {
            assert_eq!(address(url).as_deref(), Some("pd:2379"), "{url}");
        }
        assert_eq!(address("http://[::1]:2379").as_deref(), Some("[::1]:2379"));
    }

    #[test]
    fn a_url_without_an_address_is_none() {
        for url in ["", "http://", "https:///x", "  "] {
            assert_eq!(address(url), None, "{url}");
        }
    }

    #[test]
    fn of_several_urls_the_one_with_the_wanted_scheme_is_used() {
        let urls = ["http://a:1", "https://b:1"].map(String::from);
        let member = Member::read(&pdpb::Member { client_urls: urls.to_vec(), ..Default::default() });
        let used = |wanted| member.endpoint(wanted).map(|endpoint| endpoint.address.to_string());
        assert_eq!(used(Some(Scheme::Tls)).as_deref(), Some("b:1"));
        assert_eq!(used(Some(Scheme::Plain)).as_deref(), Some("a:1"));
        assert_eq!(used(None).as_deref(), Some("a:1"));
    }
}
