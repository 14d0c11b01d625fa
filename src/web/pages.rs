//! The two browsable forms of the API's description: `GET /docs` (Swagger UI) and `GET /rapidoc`.
//!
//! Everything they need is in the binary, because a LAN has no internet; the policy that goes with
//! each page forbids the browser to ask any other host. Scripts and styles are stored compressed
//! and always sent so: every browser asks for gzip, and nothing else asks for them. `assets/README.md`
//! says where they come from.

use hyper::Response;
use hyper::body::Bytes;
use hyper::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName,
    HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};

/// Only this server, no frames, no forms. Both viewers set styles on elements, hence
/// `unsafe-inline` for styles; there is no inline script.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
                      img-src 'self' data:; font-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Something to answer with status 200.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// `Content-Type`.
    pub content_type: &'static str,
    /// `Content-Encoding`.
    pub content_encoding: Option<&'static str>,
    /// The bytes, encoded as said.
    pub body: Bytes,
}

/// What stands at a path without a query, if anything does.
pub fn page(path: &str) -> Option<Page> {
    let page = match path {
        "/docs" | "/docs/" => html(include_bytes!("assets/docs.html")),
        "/docs/docs.js" => plain(SCRIPT, include_bytes!("assets/docs.js")),
        "/docs/swagger-ui.css" => packed(STYLE, include_bytes!("assets/swagger-ui.css.gz")),
        "/docs/swagger-ui-bundle.js" => {
            packed(SCRIPT, include_bytes!("assets/swagger-ui-bundle.js.gz"))
        }
        "/rapidoc" | "/rapidoc/" => html(include_bytes!("assets/rapidoc.html")),
        "/rapidoc/rapidoc-min.js" => packed(SCRIPT, include_bytes!("assets/rapidoc-min.js.gz")),
        _ => return None,
    };
    Some(page)
}

impl Page {
    /// The page with every header that belongs to it.
    pub fn into_response(self) -> Response<Bytes> {
        let mut headers: Vec<(HeaderName, &'static str)> = vec![
            (CONTENT_TYPE, self.content_type),
            (CONTENT_SECURITY_POLICY, POLICY),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (REFERRER_POLICY, "no-referrer"),
            // Long enough for one sitting, short enough for an update of the device.
            (CACHE_CONTROL, "max-age=3600"),
        ];
        headers.extend(self.content_encoding.map(|encoding| (CONTENT_ENCODING, encoding)));
        let mut response = Response::new(self.body);
        for (name, value) in headers {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

fn html(body: &'static [u8]) -> Page {
    plain("text/html; charset=utf-8", body)
}

fn plain(content_type: &'static str, body: &'static [u8]) -> Page {
    Page { content_type, content_encoding: None, body: Bytes::from_static(body) }
}

fn packed(content_type: &'static str, body: &'static [u8]) -> Page {
    Page { content_type, content_encoding: Some("gzip"), body: Bytes::from_static(body) }
}

#[cfg(test)]
mod tests {
    use super::*;

    use sha2::{Digest as _, Sha256};

    const PAGES: [&str; 2] = ["/docs", "/rapidoc"];

    fn text(path: &str) -> String {
        String::from_utf8(page(path).unwrap().body.to_vec()).unwrap()
    }

    /// Values of `src` and `href` attributes.
    fn links(html: &str) -> Vec<&str> {
        ["src=\"", "href=\""]
            .iter()
            .flat_map(|attribute| html.split(attribute).skip(1))
            .map(|rest| rest.split('"').next().unwrap())
            .collect()
    }

    #[test]
    fn every_link_of_a_page_is_served_from_here() {
        for path in PAGES {
            let html = text(path);
            let links = links(&html);
            assert!(!links.is_empty(), "{path}");
            for link in links {
                assert!(link == "data:," || page(link).is_some(), "{path} links to {link}");
            }
            assert!(!html.contains("//"), "{path} names another host");
            assert!(!html.contains("<script>"), "{path}: the policy forbids inline scripts");
        }
        assert!(text("/docs/docs.js").contains("\"/openapi.json\""));
        assert!(text("/rapidoc").contains("\"/openapi.json\""));
    }

    #[test]
    fn other_paths_are_not_ours() {
        for path in ["/", "/doc", "/docs/../docs", "/docs/docs.html", "/rapidoc/x", "", "/DOCS"] {
            assert_eq!(page(path), None, "{path}");
        }
    }

    #[test]
    fn packed_files_are_gzip_and_as_noted() {
        let readme = include_str!("assets/README.md");
        for path in
            ["/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", "/rapidoc/rapidoc-min.js"]
        {
            let page = page(path).unwrap();
            assert_eq!(page.content_encoding, Some("gzip"), "{path}");
            assert_eq!(page.body[..3], [0x1f, 0x8b, 8], "{path}");
            let digest = Sha256::digest(&page.body);
            let digest = digest.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
            assert!(readme.contains(&digest), "{path} has {digest}, assets/README.md differs");
        }
    }

    #[test]
    fn a_page_forbids_other_hosts() {
        for path in PAGES {
            let response = page(path).unwrap().into_response();
            let policy = response.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
            assert!(policy.starts_with("default-src 'none'"));
            let outside = policy.split([' ', ';']).find(|word| word.contains(['*', '.', '/']));
            assert_eq!(outside, None, "{path}");
            assert_eq!(response.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
        }
    }
}
