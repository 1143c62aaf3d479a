//! `interlock probe`: grpc.health.v1, with the flags and exit codes of grpc_health_probe.

use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser as _;
use tonic::{
    Code, Request,
    metadata::{AsciiMetadataKey, AsciiMetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::command::duration;

/// The arguments do not fit.
const INVALID_ARGUMENTS: u8 = 1;
/// No connection.
const CONNECTION_FAILURE: u8 = 2;
/// The call failed.
const RPC_FAILURE: u8 = 3;
/// The server answered something else than SERVING.
const UNHEALTHY: u8 = 4;

/// Asks a server's health.
#[derive(Debug, clap::Parser)]
#[command(name = "interlock probe", about = "Asks a server's health, as grpc_health_probe does")]
#[command(
    after_help = "Exit codes: 0 serving, 1 wrong arguments, 2 no connection, 3 the call failed, 4 not serving."
)]
struct Probe {
    /// The server, `host:port`.
    #[arg(long)]
    addr: String,
    /// The service to ask about; the server as a whole where empty.
    #[arg(long, default_value = "")]
    service: String,
    /// The user agent.
    #[arg(long, default_value = concat!("interlock-probe/", env!("CARGO_PKG_VERSION")))]
    user_agent: String,
    /// How long to wait for the connection.
    #[arg(long, value_parser = duration, default_value = "1s")]
    connect_timeout: Duration,
    /// How long to wait for the answer.
    #[arg(long, value_parser = duration, default_value = "1s")]
    rpc_timeout: Duration,
    /// Further metadata, `name: value`; may be given several times.
    #[arg(long, value_parser = header)]
    rpc_header: Vec<(AsciiMetadataKey, AsciiMetadataValue)>,
    /// Use TLS.
    #[arg(long)]
    tls: bool,
    /// The CA of the server's certificate, PEM.
    #[arg(long, requires = "tls")]
    tls_ca_cert: Option<PathBuf>,
    /// The client's certificate, PEM.
    #[arg(long, requires_all = ["tls", "tls_client_key"])]
    tls_client_cert: Option<PathBuf>,
    /// The client's key, PEM.
    #[arg(long, requires_all = ["tls", "tls_client_cert"])]
    tls_client_key: Option<PathBuf>,
    /// The name in the server's certificate.
    #[arg(long, requires = "tls")]
    tls_server_name: Option<String>,
    /// Say more.
    #[arg(short)]
    v: bool,
}

/// Asks, prints the status, and gives the exit code.
pub(crate) async fn run(arguments: Vec<OsString>) -> ExitCode {
    let arguments = std::iter::once("interlock probe".into()).chain(arguments.into_iter().map(long));
    let probe = match Probe::try_parse_from(arguments) {
        Ok(probe) => probe,
        Err(error) => {
            let code = if error.use_stderr() { INVALID_ARGUMENTS } else { 0 };
            // Nobody to tell where the terminal is gone.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match probe.ask().await {
        Ok(()) => {
            anstream::println!("status: SERVING");
            ExitCode::SUCCESS
        }
        Err((code, message)) => {
            anstream::eprintln!("{message}");
            ExitCode::from(code)
        }
    }
}

/// grpc_health_probe takes `-addr` and `--addr` alike, with `_` or `-` never mixed.
fn long(argument: OsString) -> OsString {
    let text = argument.to_string_lossy();
    let single = text.starts_with('-') && !text.starts_with("--") && text.len() > 2;
    if single { format!("-{text}").into() } else { argument }
}

fn header(text: &str) -> Result<(AsciiMetadataKey, AsciiMetadataValue), String> {
    let (name, value) = text.split_once(':').ok_or_else(|| "`name: value`".to_owned())?;
    let name = name.trim().to_ascii_lowercase().parse().map_err(|_| "not a metadata name".to_owned())?;
    let value = value.trim().parse().map_err(|_| "not a metadata value".to_owned())?;
    Ok((name, value))
}

type Failed = (u8, String);

impl Probe {
    async fn ask(&self) -> Result<(), Failed> {
        let endpoint = self.endpoint()?;
        let unreached =
            |why: String| (CONNECTION_FAILURE, format!("error: cannot reach {}: {why}", self.addr));
        let channel: Channel = tokio::time::timeout(self.connect_timeout, endpoint.connect())
            .await
            .map_err(|_| unreached(format!("no connection within {:?}", self.connect_timeout)))?
            .map_err(|error| unreached(chain(&error)))?;
        if self.v {
            anstream::eprintln!("connected to {}", self.addr);
        }
        let mut request = Request::new(HealthCheckRequest { service: self.service.clone() });
        for (name, value) in &self.rpc_header {
            request.metadata_mut().insert(name.clone(), value.clone());
        }
        let mut client = HealthClient::new(channel);
        let answer = tokio::time::timeout(self.rpc_timeout, client.check(request))
            .await
            .map_err(|_| (RPC_FAILURE, format!("error: no answer within {:?}", self.rpc_timeout)))?
            .map_err(|status| match status.code() {
                // Nothing came back: what was reached does not speak this protocol, or is gone.
                _ if std::error::Error::source(&status).is_some() => unreached(chain(&status)),
                Code::Unimplemented => {
                    (RPC_FAILURE, "error: this server does not implement grpc.health.v1.Health".to_owned())
                }
                _ => (RPC_FAILURE, format!("error: {:?}: {}", status.code(), status.message())),
            })?;
        match answer.into_inner().status() {
            ServingStatus::Serving => Ok(()),
            other => {
                Err((UNHEALTHY, format!("service unhealthy (responded with {:?})", other.as_str_name())))
            }
        }
    }

    fn endpoint(&self) -> Result<Endpoint, Failed> {
        let wrong = |what: String| (INVALID_ARGUMENTS, format!("error: {what}"));
        let scheme = if self.tls { "https" } else { "http" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{}", self.addr))
            .and_then(|endpoint| endpoint.user_agent(self.user_agent.clone()))
            .map_err(|error| wrong(chain(&error)))?
            .connect_timeout(self.connect_timeout);
        if !self.tls {
            return Ok(endpoint);
        }
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|error| wrong(format!("cannot read {}: {error}", path.display())))
        };
        let mut tls = ClientTlsConfig::new();
        if let Some(ca) = &self.tls_ca_cert {
            tls = tls.ca_certificate(Certificate::from_pem(read(ca)?));
        }
        if let (Some(cert), Some(key)) = (&self.tls_client_cert, &self.tls_client_key) {
            tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
        }
        if let Some(name) = &self.tls_server_name {
            tls = tls.domain_name(name);
        }
        endpoint.tls_config(tls).map_err(|error| wrong(chain(&error)))
    }
}

/// An error and what lies behind it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        line.push_str(": ");
        line.push_str(&inner.to_string());
        source = inner.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_with_one_hyphen_are_those_with_two() {
        let parsed = ["probe", "-addr", "127.0.0.1:1", "-rpc-timeout=2s", "-v"].map(|a| long(a.into()));
        let probe = Probe::try_parse_from(parsed).expect("as grpc_health_probe takes them");
        assert_eq!(
            (probe.addr.as_str(), probe.rpc_timeout, probe.v),
            ("127.0.0.1:1", Duration::from_secs(2), true)
        );
        let half = ["probe", "--addr", "a:1", "--tls", "--tls-client-cert", "c"];
        assert!(Probe::try_parse_from(half).is_err(), "a certificate without its key");
    }
}
