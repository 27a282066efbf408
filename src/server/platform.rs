//! The public address of this machine on cloud platforms with NAT, from their metadata services.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response};
use tracing::{info, warn};

/// Directory of the firmware's identification. Requests are only sent if it names a platform with a metadata service.
const FIRMWARE: &str = "/sys/class/dmi/id";

/// Link-local URL of the metadata service, the same on all of these platforms.
const SERVICE: &str = "http://169.254.169.254";

/// Timeout for all requests: the start waits for them, and the service is on the same host.
const PATIENCE: Duration = Duration::from_secs(1);

/// A platform with private addresses for machines and NAT to public ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Platform {
    /// Amazon EC2.
    Ec2,
    /// Google Compute Engine.
    GoogleCompute,
    /// Microsoft Azure.
    Azure,
    /// OpenStack, whose service has EC2's paths too.
    OpenStack,
}

impl Platform {
    /// Identifies the platform by the files in `firmware`.
    fn read(firmware: &Path) -> Option<Self> {
        let says = |file: &str| std::fs::read_to_string(firmware.join(file)).unwrap_or_default();
        match says("sys_vendor").trim() {
            "Amazon EC2" => Some(Self::Ec2),
            "Google" => Some(Self::GoogleCompute),
            // The vendor is that of any Hyper-V; the tag is specific to Azure.
            "Microsoft Corporation" => (says("chassis_asset_tag").trim()
                == "7783-7084-3265-9085-8269-3286-77")
                .then_some(Self::Azure),
            _ => says("product_name").starts_with("OpenStack").then_some(Self::OpenStack),
        }
    }

    /// Requests the public address from `service`, which answers 404 or an empty text if there is none.
    async fn public_address(self, service: &str) -> reqwest::Result<Option<IpAddr>> {
        let client = Client::builder().no_proxy().redirect(Policy::none()).timeout(PATIENCE).build()?;
        let get = |path: &str| client.get(format!("{service}{path}"));
        match self {
            Self::Ec2 => {
                let token = client.put(format!("{service}/latest/api/token"));
                let token = token.header("X-aws-ec2-metadata-token-ttl-seconds", "60").send().await?;
                let token = text(token.error_for_status()?).await?;
                address(get("/latest/meta-data/public-ipv4").header("X-aws-ec2-metadata-token", token)).await
            }
            Self::GoogleCompute => {
                let path = "/computeMetadata/v1/instance/network-interfaces/0/access-configs/0/external-ip";
                address(get(path).header("Metadata-Flavor", "Google")).await
            }
            Self::Azure => {
                let path = "/metadata/instance/network/interface/0/ipv4/ipAddress/0/publicIpAddress\
                            ?api-version=2021-02-01&format=text";
                address(get(path).header("Metadata", "true")).await
            }
            Self::OpenStack => address(get("/latest/meta-data/public-ipv4")).await,
        }
    }
}

/// Returns this machine's public address, if its platform provides it.
pub(super) async fn public_address() -> Option<IpAddr> {
    let platform = Platform::read(Path::new(FIRMWARE))?;
    let answer = tokio::time::timeout(PATIENCE, platform.public_address(SERVICE)).await;
    match answer {
        Ok(Ok(Some(address))) => {
            info!(event = "publicAddressFound", ?platform, %address, "the platform says at which address clients find this server");
            Some(address)
        }
        Ok(Ok(None)) => None,
        Ok(Err(error)) => {
            warn!(
                event = "publicAddressUnknown",
                ?platform,
                error = &error as &dyn std::error::Error,
                "the platform does not tell the public address"
            );
            None
        }
        Err(_) => {
            warn!(
                event = "publicAddressUnknown",
                ?platform,
                "the platform does not tell the public address in time"
            );
            None
        }
    }
}

async fn address(question: RequestBuilder) -> reqwest::Result<Option<IpAddr>> {
    let answer = question.send().await?;
    if !answer.status().is_success() {
        return Ok(None);
    }
    Ok(text(answer).await?.trim().parse().ok())
}

/// Returns the first chunk of an answer, which is all that is needed here.
async fn text(mut answer: Response) -> reqwest::Result<String> {
    let bytes = answer.chunk().await?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::{HeaderMap, StatusCode};
    use axum::routing::{get, put};
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;

    use super::*;

    fn firmware(files: &[(&str, &str)]) -> Option<Platform> {
        let dir = tempfile::tempdir().unwrap();
        for (file, says) in files {
            std::fs::write(dir.path().join(file), format!("{says}\n")).unwrap();
        }
        Platform::read(dir.path())
    }

    /// Starts a service with the answers of all platforms, each for requests with its header.
    async fn service() -> (String, JoinSet<()>) {
        async fn answer(headers: HeaderMap, wanted: (&str, &str), address: &str) -> (StatusCode, String) {
            let is_asked = headers.get(wanted.0).is_some_and(|value| value == wanted.1);
            if is_asked {
                (StatusCode::OK, address.to_owned())
            } else {
                (StatusCode::UNAUTHORIZED, String::new())
            }
        }
        let ec2 = |headers| answer(headers, ("x-aws-ec2-metadata-token", "a-token"), "203.0.113.1");
        let google = |headers| answer(headers, ("metadata-flavor", "Google"), "203.0.113.2\n");
        let azure = |headers| answer(headers, ("metadata", "true"), "203.0.113.3");
        let token = |headers| answer(headers, ("x-aws-ec2-metadata-token-ttl-seconds", "60"), "a-token");
        let google_path = "/computeMetadata/v1/instance/network-interfaces/0/access-configs/0/external-ip";
        let azure_path = "/metadata/instance/network/interface/0/ipv4/ipAddress/0/publicIpAddress";
        let app = Router::new()
            .route("/latest/api/token", put(token))
            .route("/latest/meta-data/public-ipv4", get(ec2))
            .route(google_path, get(google))
            .route(azure_path, get(azure));
        serve(app).await
    }

    async fn serve(app: Router) -> (String, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let service = format!("http://{}", listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, app).await.unwrap() });
        (service, serving)
    }

    #[test]
    fn firmware_names_the_platform() {
        assert_eq!(firmware(&[]), None);
        assert_eq!(firmware(&[("sys_vendor", "QEMU"), ("product_name", "Standard PC")]), None);
        assert_eq!(firmware(&[("sys_vendor", "Amazon EC2")]), Some(Platform::Ec2));
        assert_eq!(firmware(&[("sys_vendor", "Google")]), Some(Platform::GoogleCompute));
        assert_eq!(firmware(&[("sys_vendor", "Microsoft Corporation")]), None);
        let azure = [
            ("sys_vendor", "Microsoft Corporation"),
            ("chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77"),
        ];
        assert_eq!(firmware(&azure), Some(Platform::Azure));
        let open_stack = [("sys_vendor", "OpenStack Foundation"), ("product_name", "OpenStack Nova")];
        assert_eq!(firmware(&open_stack), Some(Platform::OpenStack));
    }

    #[tokio::test]
    async fn platforms_return_the_public_address() {
        let (service, _serving) = service().await;
        for (platform, address) in [
            (Platform::Ec2, "203.0.113.1"),
            (Platform::GoogleCompute, "203.0.113.2"),
            (Platform::Azure, "203.0.113.3"),
        ] {
            let told = platform.public_address(&service).await.unwrap();
            assert_eq!(told, Some(address.parse().unwrap()), "{platform:?}");
        }
        // This service requires a token, which is not sent on OpenStack.
        assert_eq!(Platform::OpenStack.public_address(&service).await.unwrap(), None);
    }

    #[tokio::test]
    async fn machine_without_public_address_returns_none() {
        let app = Router::new().route("/latest/meta-data/public-ipv4", get(|| async { "" }));
        let (service, _serving) = serve(app).await;
        assert_eq!(Platform::OpenStack.public_address(&service).await.unwrap(), None);
        assert_eq!(Platform::GoogleCompute.public_address(&service).await.unwrap(), None);
        assert!(Platform::Ec2.public_address(&service).await.is_err(), "it gives no token");
    }
}
