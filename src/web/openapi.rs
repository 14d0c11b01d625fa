//! The OpenAPI 3.1 document, made from the table of routes, the forms, the answers and the table
//! of errors: nothing in it is written twice, except sentences.
//!
//! What is ours and not of the API family that existing clients know carries `x-extension: true`
//! and the word "Extension" in its text.

use hyper::Method;
use utoipa::ToSchema;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::path::{
    HttpMethod, Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn,
    PathItemBuilder,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    Components, ComponentsBuilder, ContentBuilder, InfoBuilder, OpenApiBuilder, PathsBuilder, Ref,
    RefOr, Required, ResponseBuilder, ResponsesBuilder,
};

use crate::web::audit;
use crate::web::auth::KEY_HEADER;
use crate::web::error::ErrorBody;
use crate::web::explain::ExplainAnswer;
use crate::web::operations;
use crate::web::operations::{Answer, Description, Field};
use crate::web::path::{Access, Path, ROUTES, Route};
use crate::web::upkeep;
use crate::web::{answers, forms};

const KEY_SCHEME: &str = "api_key";
const JSON: &str = "application/json";
const INTRODUCTION: &str = "Face search on the local network: enrol people into collections, then \
ask who is in a picture. Pictures are base64 of a JPEG or PNG file. Every answer is JSON; every \
error is an object with `code` and `message`. `null` means absent and unknown fields are ignored. \
Operations and fields marked *Extension* are additions of this implementation.";

/// The document as JSON.
///
/// # Panics
/// Never: the document holds text, numbers and maps of text.
pub fn document() -> String {
    let mut paths = PathsBuilder::new();
    for path in Path::ALL {
        let mut item = PathItemBuilder::new();
        for route in ROUTES.iter().filter(|route| route.path == path) {
            if let Some(method) = http_method(&route.method) {
                item = item.operation(method, operation(route));
            }
        }
        paths = paths.path(path.template(), item.build());
    }
    let info = InfoBuilder::new()
        .title("facelatch")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(INTRODUCTION));
    let document =
        OpenApiBuilder::new().info(info.build()).paths(paths).components(Some(components()));
    document.build().to_json().expect("the document holds text, numbers and maps of text")
}

fn http_method(method: &Method) -> Option<HttpMethod> {
    match *method {
        Method::GET => Some(HttpMethod::Get),
        Method::POST => Some(HttpMethod::Post),
        Method::PUT => Some(HttpMethod::Put),
        Method::DELETE => Some(HttpMethod::Delete),
        _ => None,
    }
}

fn operation(route: &Route) -> Operation {
    let about = operations::describe(route);
    let text = match (about.extension, about.text) {
        (false, text) => text.to_string(),
        (true, text) => format!("Extension. {text}").trim_end().to_string(),
    };
    let mut operation = OperationBuilder::new()
        .summary(Some(about.summary))
        .description(Some(format!("{text}{}", access_text(route.access))))
        .operation_id(Some(about.id))
        .tag(about.tag)
        .responses(responses(&about));
    for field in about.query {
        operation = operation.parameter(parameter(field, ParameterIn::Query));
    }
    if matches!(route.path, Path::DocsAsset | Path::RapiDocAsset) {
        let asset = Field { name: "asset", text: "File name.", required: true, kind: Type::String };
        operation = operation.parameter(parameter(&asset, ParameterIn::Path));
    }
    if matches!(route.path, Path::Event | Path::EventExplain) {
        let id = Field { name: "id", text: "The event's id.", required: true, kind: Type::String };
        operation = operation.parameter(parameter(&id, ParameterIn::Path));
    }
    if let Some(form) = about.form {
        let content = ContentBuilder::new().schema(Some(reference(form))).build();
        let required = if about.query.is_empty() { Required::True } else { Required::False };
        let body = RequestBodyBuilder::new().content(JSON, content).required(Some(required));
        operation = operation.request_body(Some(body.build()));
    }
    if !matches!(route.access, Access::Open | Access::LocalSocket) {
        let none: [&str; 0] = [];
        operation = operation.security(SecurityRequirement::new(KEY_SCHEME, none));
    }
    if about.extension {
        let mark = ExtensionsBuilder::new().add("x-extension", true).build();
        operation = operation.extensions(Some(mark));
    }
    operation.build()
}

fn access_text(access: Access) -> String {
    match access {
        Access::Open => String::new(),
        Access::Metrics => {
            "\n\nNeeds a key with the scope `events`, or none from the local network, as \
             configured."
                .to_string()
        }
        Access::LocalSocket => {
            "\n\nOnly over the device's own socket; no key opens it.".to_string()
        }
        Access::AnyOf(scopes) => {
            let names: Vec<String> = scopes
                .iter()
                .map(|scope| format!("`{}`", operations::scope_name(*scope)))
                .collect();
            format!("\n\nNeeds a key with the scope {}.", names.join(" or "))
        }
    }
}

fn parameter(field: &Field, place: ParameterIn) -> Parameter {
    let schema = ObjectBuilder::new().schema_type(field.kind.clone()).build();
    ParameterBuilder::new()
        .name(field.name)
        .parameter_in(place)
        .required(if field.required { Required::True } else { Required::False })
        .description(Some(field.text))
        .schema(Some(Schema::Object(schema)))
        .build()
}

/// Success, and one response for each status that the operation's errors have.
fn responses(about: &Description) -> ResponsesBuilder {
    let mut responses = ResponsesBuilder::new().response("200", success(about));
    let mut codes = about.errors.clone();
    codes.sort_by_key(|code| code.row().status);
    for of_one_status in codes.chunk_by(|a, b| a.row().status == b.row().status) {
        let lines: Vec<String> = of_one_status
            .iter()
            .map(|code| format!("`{}`: {}", code.row().code, code.row().message.trim_end()))
            .collect();
        let body = ContentBuilder::new().schema(Some(reference("ErrorBody"))).build();
        let response = ResponseBuilder::new().description(lines.join("\n\n")).content(JSON, body);
        responses = responses.response(of_one_status[0].row().status.to_string(), response);
    }
    responses
}

fn success(about: &Description) -> ResponseBuilder {
    let response = ResponseBuilder::new().description("Success.");
    let (media_type, schema) = match about.answer {
        Answer::Object(name) => (JSON, reference(name)),
        Answer::Array(name) => {
            let array = ArrayBuilder::new().items(reference(name)).build();
            (JSON, RefOr::T(Schema::Array(array)))
        }
        Answer::AnyObject => (JSON, plain(Type::Object)),
        Answer::Text(media_type) => (media_type, plain(Type::String)),
    };
    response.content(media_type, ContentBuilder::new().schema(Some(schema)).build())
}

fn plain(kind: Type) -> RefOr<Schema> {
    RefOr::T(Schema::Object(ObjectBuilder::new().schema_type(kind).build()))
}

fn reference(name: &str) -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name(name))
}

fn components() -> Components {
    let key = ApiKey::Header(ApiKeyValue::with_description(
        KEY_HEADER,
        "Made by `POST /keys` or `facelatch key add`; the first start shows an admin key once.",
    ));
    let builder = with_answers(with_forms(ComponentsBuilder::new()));
    builder.security_scheme(KEY_SCHEME, SecurityScheme::ApiKey(key)).build()
}

fn with_forms(builder: ComponentsBuilder) -> ComponentsBuilder {
    let builder = with::<forms::CollectionForm>(builder);
    let builder = with::<forms::PersonForm>(builder);
    let builder = with::<forms::BulkForm>(builder);
    let builder = with::<forms::PersonKeyForm>(builder);
    let builder = with::<forms::FaceSearchForm>(builder);
    let builder = with::<forms::MultiFaceSearchForm>(builder);
    let builder = with::<forms::CompareForm>(builder);
    let builder = with::<forms::LivenessForm>(builder);
    let builder = with::<forms::KeyForm>(builder);
    with::<forms::KeyIdForm>(builder)
}

fn with_answers(builder: ComponentsBuilder) -> ComponentsBuilder {
    let builder = with::<ErrorBody>(builder);
    let builder = with::<answers::CollectionAnswer>(builder);
    let builder = with::<answers::PersonAnswer>(builder);
    let builder = with::<answers::PersonsAnswer>(builder);
    let builder = with::<answers::MatchAnswer>(builder);
    let builder = with::<answers::MultiFaceSearchAnswer>(builder);
    let builder = with::<answers::CompareAnswer>(builder);
    let builder = with::<answers::LivenessAnswer>(builder);
    let builder = with::<answers::KeyAnswer>(builder);
    let builder = with::<answers::EventsAnswer>(builder);
    let builder = with::<ExplainAnswer>(builder);
    let builder = with::<audit::AuditAnswer>(builder);
    let builder = with::<upkeep::StoreAnswer>(builder);
    let builder = with::<upkeep::BackupAnswer>(builder);
    let builder = with::<upkeep::MaintenanceAnswer>(builder);
    let builder = with::<answers::HealthAnswer>(builder);
    with::<answers::ReadyAnswer>(builder)
}

/// A type and every type that it names.
fn with<T: ToSchema>(builder: ComponentsBuilder) -> ComponentsBuilder {
    let mut named = Vec::new();
    T::schemas(&mut named);
    builder.schema(T::name(), T::schema()).schemas_from_iter(named)
}
