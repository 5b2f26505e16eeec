//! OpenTelemetry logs to others: notices as log records, protobuf over HTTP (OTLP 1.x).
//!
//! A repetition has the same attribute `holdfast.key`.

use super::config::Wants;
use super::http::{self, Verdict};
use super::{Notice, Refused, Sink};
use crate::resource::{Invalid, OpenError, resolve, secret};
use crate::tls::ClientTls;
use async_trait::async_trait;
use detection::Severity;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// An OTLP receiver as the topology file describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtlpConfig {
    /// Where it listens: `https`, or `http` on this machine; by custom `…:4318/v1/logs`.
    pub url: String,
    /// The file with the value of the header `Authorization`, such as `Bearer …`.
    #[serde(default)]
    pub authorization: Option<PathBuf>,
    /// How the server is checked.
    #[serde(default)]
    pub tls: ClientTls,
    /// An attempt takes no longer.
    #[serde(default = "http::attempt_seconds")]
    pub timeout_seconds: u64,
    /// Which notices it is for.
    #[serde(default)]
    pub wants: Wants,
}

impl OtlpConfig {
    /// Makes relative paths count from a folder.
    pub(super) fn resolve(&mut self, folder: &Path) {
        self.authorization.iter_mut().for_each(|path| resolve(path, folder));
        self.tls.resolve(folder);
    }

    /// What is wrong with it.
    pub fn problems(&self) -> Vec<Invalid> {
        http::problems(&self.url, self.timeout_seconds).into_iter().chain(self.tls.problems()).collect()
    }
}

/// One receiver.
pub struct Otlp {
    name: String,
    url: String,
    authorization: Option<HeaderValue>,
    client: reqwest::Client,
    wants: Wants,
}

impl Otlp {
    /// Reads the secret and the certificates.
    pub fn open(name: &str, config: &OtlpConfig) -> Result<Self, OpenError> {
        let authorization = config.authorization.as_deref().map(secret).transpose()?;
        let authorization = authorization
            .map(|text| HeaderValue::from_str(&text))
            .transpose()
            .map_err(|_| Invalid::new("authorization", "the file holds characters that no header may have"))?
            .map(|mut value| {
                value.set_sensitive(true);
                value
            });
        let client = http::client(&config.tls, config.timeout_seconds)?;
        let (name, url, wants) = (name.to_owned(), config.url.clone(), config.wants.clone());
        Ok(Self { name, url, authorization, client, wants })
    }

    /// Sends notices in one request; how many the other side did not want, and why.
    async fn send(&self, notices: &[Notice]) -> Result<(i64, String), Refused> {
        let body = request(notices).encode_to_vec();
        let mut request = self.client.post(&self.url).header(CONTENT_TYPE, "application/x-protobuf").body(body);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let answer = request.send().await.map_err(|error| http::later(&error))?;
        if let Verdict::Refused(refused) = http::verdict(answer.status()) {
            return Err(refused);
        }
        let body = http::body(answer).await.map_err(|error| http::later(&error))?;
        // A receiver that answers something else has taken it all the same: it said so by its status.
        let partial = ExportLogsServiceResponse::decode(body.as_slice()).unwrap_or_default().partial_success;
        Ok(partial.map(|partial| (partial.rejected_log_records, partial.error_message)).unwrap_or_default())
    }

    async fn send_one(&self, notice: &Notice) -> Result<(), Refused> {
        match self.send(std::slice::from_ref(notice)).await? {
            (..=0, _) => Ok(()),
            (_, reason) => Err(Refused::Never(reason)),
        }
    }
}

/// Notices as one request.
pub fn request(notices: &[Notice]) -> ExportLogsServiceRequest {
    let resource = Resource { attributes: vec![attribute("service.name", "holdfast")], ..Resource::default() };
    let scope = InstrumentationScope { name: "holdfast.notices".to_owned(), ..InstrumentationScope::default() };
    let log_records = notices.iter().map(record).collect();
    let scope_logs = vec![ScopeLogs { scope: Some(scope), log_records, schema_url: String::new() }];
    let resource_logs = vec![ResourceLogs { resource: Some(resource), scope_logs, schema_url: String::new() }];
    ExportLogsServiceRequest { resource_logs }
}

fn record(notice: &Notice) -> LogRecord {
    // The specification's numbers for INFO, WARN, ERROR and FATAL, and the step between.
    let severity_number = match notice.severity {
        Severity::Informational => 9,
        Severity::Low => 10,
        Severity::Medium => 13,
        Severity::High => 17,
        Severity::Critical => 21,
    };
    let time_unix_nano = notice.at_ms.saturating_mul(1_000_000);
    LogRecord {
        time_unix_nano,
        observed_time_unix_nano: time_unix_nano,
        severity_number,
        severity_text: notice.severity.name().to_owned(),
        body: Some(text(&notice.subject)),
        attributes: vec![
            attribute("holdfast.key", &notice.key),
            attribute("holdfast.tenant", &notice.tenant),
            attribute("holdfast.body", &notice.body),
        ],
        event_name: format!("holdfast.{}", notice.topic.name()),
        ..LogRecord::default()
    }
}

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(text(value)), ..KeyValue::default() }
}

fn text(value: &str) -> AnyValue {
    AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) }
}

#[async_trait]
impl Sink for Otlp {
    fn name(&self) -> &str {
        &self.name
    }
    fn wants(&self, notice: &Notice) -> bool {
        self.wants.admit(notice)
    }
    async fn deliver(&self, notices: &[Notice]) -> (usize, Result<(), Refused>) {
        match self.send(notices).await {
            Ok((..=0, _)) => return (notices.len(), Ok(())),
            Err(later @ Refused::Later(_)) => return (0, Err(later)),
            // Not all of them: one by one it comes out which.
            Ok(_) | Err(Refused::Never(_)) => {}
        }
        for (taken, notice) in notices.iter().enumerate() {
            if let Err(refused) = self.send_one(notice).await {
                return (taken, Err(refused));
            }
        }
        (notices.len(), Ok(()))
    }
}
