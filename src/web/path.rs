//! Which endpoint a request is for: the URL decoded into [`Path`], and the one table of routes
//! with what each demands of the caller.

use hyper::Method;

use crate::store::Scope;

/// A path that exists, whatever the method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names are the paths")]
pub enum Path {
    Collection,
    Collections,
    Person,
    Persons,
    FaceSearch,
    MultiFaceSearch,
    Compare,
    Liveness,
    Keys,
    Audit,
    Store,
    Backup,
    Maintenance,
    Events,
    EventStream,
    Event,
    EventExplain,
    Health,
    Ready,
    Metrics,
    OpenApi,
    Docs,
    /// Scripts, styles and fonts of the two pages.
    DocsAsset,
    RapiDoc,
    /// As `DocsAsset`.
    RapiDocAsset,
}

impl Path {
    /// Every path.
    pub const ALL: [Self; 25] = [
        Self::Collection,
        Self::Collections,
        Self::Person,
        Self::Persons,
        Self::FaceSearch,
        Self::MultiFaceSearch,
        Self::Compare,
        Self::Liveness,
        Self::Keys,
        Self::Audit,
        Self::Store,
        Self::Backup,
        Self::Maintenance,
        Self::Events,
        Self::EventStream,
        Self::Event,
        Self::EventExplain,
        Self::Health,
        Self::Ready,
        Self::Metrics,
        Self::OpenApi,
        Self::Docs,
        Self::DocsAsset,
        Self::RapiDoc,
        Self::RapiDocAsset,
    ];

    /// Decodes the path of a URL. Repeated leading slashes count as one, because existing clients
    /// send `//face-search`; everything else is literal and case-sensitive.
    pub fn decode(url_path: &str) -> Option<Self> {
        let name = url_path.strip_prefix('/')?.trim_start_matches('/');
        let exact = |path: &Self| &path.template()[1..] == name;
        match name.split_once('/') {
            Some(("docs", "")) => Some(Self::Docs),
            Some(("docs", _)) => Some(Self::DocsAsset),
            Some(("rapidoc", "")) => Some(Self::RapiDoc),
            Some(("rapidoc", _)) => Some(Self::RapiDocAsset),
            Some(("events", of_event)) => Self::decode_event(of_event),
            _ => Self::ALL.into_iter().find(exact),
        }
    }

    /// The `{id}` of a path below `/events/`.
    pub fn event_id(url_path: &str) -> Option<&str> {
        let of_event = url_path.trim_start_matches('/').strip_prefix("events/")?;
        of_event.split('/').next().filter(|id| !id.is_empty())
    }

    /// What follows `/events/`. No id is `stream`: ids are 26 letters and digits.
    fn decode_event(of_event: &str) -> Option<Self> {
        match of_event.split_once('/') {
            None if of_event == "stream" => Some(Self::EventStream),
            None if !of_event.is_empty() => Some(Self::Event),
            Some((id, "explain")) if !id.is_empty() => Some(Self::EventExplain),
            _ => None,
        }
    }

    /// The path as the OpenAPI document writes it.
    pub const fn template(self) -> &'static str {
        match self {
            Self::Collection => "/collection",
            Self::Collections => "/collections",
            Self::Person => "/person",
            Self::Persons => "/persons",
            Self::FaceSearch => "/face-search",
            Self::MultiFaceSearch => "/multi-face-search",
            Self::Compare => "/compare",
            Self::Liveness => "/liveness",
            Self::Keys => "/keys",
            Self::Audit => "/audit",
            Self::Store => "/store",
            Self::Backup => "/backup",
            Self::Maintenance => "/maintenance",
            Self::Events => "/events",
            Self::EventStream => "/events/stream",
            Self::Event => "/events/{id}",
            Self::EventExplain => "/events/{id}/explain",
            Self::Health => "/health",
            Self::Ready => "/ready",
            Self::Metrics => "/metrics",
            Self::OpenApi => "/openapi.json",
            Self::Docs => "/docs",
            Self::DocsAsset => "/docs/{asset}",
            Self::RapiDoc => "/rapidoc",
            Self::RapiDocAsset => "/rapidoc/{asset}",
        }
    }
}

/// A path and a method that go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the table of routes and the OpenAPI document explain each")]
pub enum Endpoint {
    CreateCollection,
    DeleteCollection,
    ReadCollection,
    ListCollections,
    PutPerson,
    ReadPerson,
    DeletePerson,
    PutPersons,
    ListPersons,
    FaceSearch,
    MultiFaceSearch,
    Compare,
    CheckLiveness,
    ListKeys,
    AddKey,
    RevokeKey,
    ListAudit,
    StoreInfo,
    BackUp,
    Maintain,
    ListEvents,
    StreamEvents,
    ReadEvent,
    ExplainEvent,
    Health,
    Ready,
    Metrics,
    OpenApi,
    Page,
}

/// What an endpoint demands of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    Open,
    /// A key with one of these scopes, or with `admin`.
    AnyOf(&'static [Scope]),
    /// What the configuration says of `/metrics`.
    Metrics,
    /// The device's own socket: no key opens it.
    LocalSocket,
}

/// One row of the table of routes.
#[derive(Clone, Debug)]
pub struct Route {
    /// The path.
    pub path: Path,
    /// The method.
    pub method: Method,
    /// What answers it.
    pub endpoint: Endpoint,
    /// Who may call it.
    pub access: Access,
}

const SEARCH: Access = Access::AnyOf(&[Scope::Search]);
const ENROL: Access = Access::AnyOf(&[Scope::Enrol]);
const SEARCH_OR_ENROL: Access = Access::AnyOf(&[Scope::Search, Scope::Enrol]);
const EVENTS: Access = Access::AnyOf(&[Scope::Events]);
const ADMIN: Access = Access::AnyOf(&[Scope::Admin]);

/// Every route. A search key learns which collections there are, but reads people only as results
/// of a search.
#[rustfmt::skip]
pub static ROUTES: [Route; 32] = [
    route(Path::Collection, Method::POST, Endpoint::CreateCollection, ENROL),
    route(Path::Collection, Method::DELETE, Endpoint::DeleteCollection, ENROL),
    route(Path::Collection, Method::GET, Endpoint::ReadCollection, SEARCH_OR_ENROL),
    route(Path::Collections, Method::GET, Endpoint::ListCollections, SEARCH_OR_ENROL),
    route(Path::Person, Method::PUT, Endpoint::PutPerson, ENROL),
    route(Path::Person, Method::GET, Endpoint::ReadPerson, ENROL),
    route(Path::Person, Method::DELETE, Endpoint::DeletePerson, ENROL),
    route(Path::Persons, Method::PUT, Endpoint::PutPersons, ENROL),
    route(Path::Persons, Method::GET, Endpoint::ListPersons, ENROL),
    route(Path::FaceSearch, Method::POST, Endpoint::FaceSearch, SEARCH),
    route(Path::MultiFaceSearch, Method::POST, Endpoint::MultiFaceSearch, SEARCH),
    route(Path::Compare, Method::POST, Endpoint::Compare, SEARCH),
    route(Path::Liveness, Method::POST, Endpoint::CheckLiveness, SEARCH),
    route(Path::Keys, Method::GET, Endpoint::ListKeys, ADMIN),
    route(Path::Keys, Method::POST, Endpoint::AddKey, ADMIN),
    route(Path::Keys, Method::DELETE, Endpoint::RevokeKey, ADMIN),
    route(Path::Audit, Method::GET, Endpoint::ListAudit, ADMIN),
    route(Path::Store, Method::GET, Endpoint::StoreInfo, Access::LocalSocket),
    route(Path::Backup, Method::POST, Endpoint::BackUp, Access::LocalSocket),
    route(Path::Maintenance, Method::POST, Endpoint::Maintain, Access::LocalSocket),
    route(Path::Events, Method::GET, Endpoint::ListEvents, EVENTS),
    route(Path::EventStream, Method::GET, Endpoint::StreamEvents, EVENTS),
    route(Path::Event, Method::GET, Endpoint::ReadEvent, EVENTS),
    route(Path::EventExplain, Method::GET, Endpoint::ExplainEvent, EVENTS),
    route(Path::Health, Method::GET, Endpoint::Health, Access::Open),
    route(Path::Ready, Method::GET, Endpoint::Ready, Access::Open),
    route(Path::Metrics, Method::GET, Endpoint::Metrics, Access::Metrics),
    route(Path::OpenApi, Method::GET, Endpoint::OpenApi, Access::Open),
    route(Path::Docs, Method::GET, Endpoint::Page, Access::Open),
    route(Path::DocsAsset, Method::GET, Endpoint::Page, Access::Open),
    route(Path::RapiDoc, Method::GET, Endpoint::Page, Access::Open),
    route(Path::RapiDocAsset, Method::GET, Endpoint::Page, Access::Open),
];

const fn route(path: Path, method: Method, endpoint: Endpoint, access: Access) -> Route {
    Route { path, method, endpoint, access }
}

/// The route of a path and a method.
pub fn find(path: Path, method: &Method) -> Option<&'static Route> {
    ROUTES.iter().find(|route| route.path == path && route.method == *method)
}

/// The methods that a path answers, as the header `Allow` wants them.
pub fn allowed_methods(path: Path) -> String {
    let methods: Vec<&str> = ROUTES
        .iter()
        .filter(|route| route.path == path)
        .map(|route| route.method.as_str())
        .collect();
    methods.join(", ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_url_and_what_it_means() {
        let table = [
            ("/collection", Some(Path::Collection)),
            ("/collections", Some(Path::Collections)),
            ("/person", Some(Path::Person)),
            ("/persons", Some(Path::Persons)),
            ("/face-search", Some(Path::FaceSearch)),
            ("//face-search", Some(Path::FaceSearch)),
            ("////face-search", Some(Path::FaceSearch)),
            ("/multi-face-search", Some(Path::MultiFaceSearch)),
            ("/compare", Some(Path::Compare)),
            ("/liveness", Some(Path::Liveness)),
            ("/keys", Some(Path::Keys)),
            ("/audit", Some(Path::Audit)),
            ("/store", Some(Path::Store)),
            ("/backup", Some(Path::Backup)),
            ("/backup/x", None),
            ("/maintenance", Some(Path::Maintenance)),
            ("/events", Some(Path::Events)),
            ("/events/stream", Some(Path::EventStream)),
            ("//events/01JDC4", Some(Path::Event)),
            ("/events/01JDC4/explain", Some(Path::EventExplain)),
            ("/events/stream/explain", Some(Path::EventExplain)),
            ("/events/", None),
            ("/events//explain", None),
            ("/events/01JDC4/", None),
            ("/events/01JDC4/other", None),
            ("/events/01JDC4/explain/", None),
            ("/health", Some(Path::Health)),
            ("/ready", Some(Path::Ready)),
            ("/metrics", Some(Path::Metrics)),
            ("/openapi.json", Some(Path::OpenApi)),
            ("/docs", Some(Path::Docs)),
            ("/docs/page.js", Some(Path::DocsAsset)),
            ("/docs/../openapi.json", Some(Path::DocsAsset)),
            ("/rapidoc", Some(Path::RapiDoc)),
            ("", None),
            ("*", None),
            ("/", None),
            ("//", None),
            ("/docs/", Some(Path::Docs)),
            ("/rapidoc/", Some(Path::RapiDoc)),
            ("/rapidoc/page.js", Some(Path::RapiDocAsset)),
            ("/docsx", None),
            ("face-search", None),
            ("/face-search/", None),
            ("/Face-Search", None),
            ("/face%2Dsearch", None),
            ("/v1/face-search", None),
            ("/face-search//", None),
            ("/collection/staff", None),
            ("/favicon.ico", None),
            ("/../etc/passwd", None),
        ];
        for (url, expected) in table {
            assert_eq!(Path::decode(url), expected, "{url}");
        }
    }

    #[test]
    fn every_path_has_a_route_and_no_route_is_there_twice() {
        for path in Path::ALL {
            assert_eq!(Path::decode(path.template()), Some(path));
            assert!(!allowed_methods(path).is_empty(), "{path:?}");
        }
        let pairs: BTreeSet<_> =
            ROUTES.iter().map(|route| (route.path, route.method.as_str())).collect();
        assert_eq!(pairs.len(), ROUTES.len());
        assert_eq!(allowed_methods(Path::Collection), "POST, DELETE, GET");
        assert!(find(Path::FaceSearch, &Method::GET).is_none());
        assert!(find(Path::FaceSearch, &Method::HEAD).is_none());
    }
}
