//! Each kind of object store does what the trait says.

use super::sample::{Sample, Sight, remote, settings, story};
use super::servers;
use super::stores::{LENGTHS, or_skip};
use trainspot_dvc::Object;
use trainspot_dvc::remote::{RemoteStore as _, Settings};

/// Writes something else under an object's name, at a server that takes PUT.
async fn overwrite(base: &str, object: &Object) {
    let put =
        reqwest::Client::new().put(format!("{base}{}", object.oid.key())).body("wrong").send().await.unwrap();
    assert!(put.status().is_success(), "{}", put.status());
}

pub(crate) const KEYS: [(&str, &str); 2] = [("access_key_id", "id"), ("secret_access_key", "secret")];

pub(crate) fn s3_settings(moto: &str, bucket: &str, more: &[(&str, &str)]) -> Settings {
    let options = [&[("endpointurl", moto)], &KEYS[..], more].concat();
    settings(&format!("s3://{bucket}/a/b"), &options, &[])
}

#[tokio::test]
async fn s3_by_moto() {
    let moto = or_skip!(servers::moto());
    let bucket = servers::bucket(moto).await;
    let base = format!("{moto}/{bucket}/a/b/");
    let spoil = async |object: &Object| overwrite(&base, object).await;
    story(&s3_settings(moto, &bucket, &[]), &Sight::Web(base.clone(), "/"), &Sample::of(&LENGTHS), spoil)
        .await;
    // Nothing was left half-sent, of what was refused either.
    let open = reqwest::get(format!("{moto}/{bucket}?uploads")).await.unwrap().text().await.unwrap();
    assert!(!open.contains("<UploadId>"), "{open}");
}

#[tokio::test]
async fn s3_keys_of_the_configuration_reach_the_store() {
    let moto = or_skip!(servers::moto());
    let client = reqwest::Client::new();
    for (more, query, expected) in [
        (vec![("acl", "public-read")], "?acl", "AllUsers"),
        (
            vec![("grant_read", r#"uri="http://acs.amazonaws.com/groups/global/AuthenticatedUsers""#)],
            "?acl",
            "AuthenticatedUsers",
        ),
        (vec![("sse", "AES256")], "", "AES256"),
        (vec![("sse", "aws:kms"), ("sse_kms_key_id", "the-key")], "", "the-key"),
    ] {
        let bucket = servers::bucket(moto).await;
        let sample = Sample::of(&[20, 9 << 20]);
        remote(&s3_settings(moto, &bucket, &more)).await.put_all(&sample.objects).await.unwrap();
        for object in &sample.objects {
            let url = format!("{moto}/{bucket}/a/b/{}{query}", object.oid.key());
            let answer = client.get(url).send().await.unwrap();
            let headers = format!("{:?}", answer.headers());
            let said = if query.is_empty() { headers } else { answer.text().await.unwrap() };
            assert!(said.contains(expected), "{more:?}: {said}");
        }
    }
}

#[tokio::test]
async fn s3_credentials_come_from_where_the_sdk_finds_them() {
    let moto = or_skip!(servers::moto());
    let bucket = servers::bucket(moto).await;
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".aws")).unwrap();
    std::fs::write(
        home.path().join(".aws/credentials"),
        "[p]\naws_access_key_id = fromfile\naws_secret_access_key = s\n",
    )
    .unwrap();
    std::fs::write(home.path().join(".aws/config"), "[profile p]\nregion = eu-west-3\n").unwrap();
    let metadata = metadata().await;
    let home = home.path().to_str().unwrap();
    let off = ("AWS_EC2_METADATA_DISABLED", "true");
    let url = format!("s3://{bucket}/x");
    let sample = Sample::of(&[20]);
    for (name, options, environment, expected) in [
        (
            "environment",
            vec![],
            vec![("AWS_ACCESS_KEY_ID", "fromenv"), ("AWS_SECRET_ACCESS_KEY", "s"), off],
            Some("fromenv/"),
        ),
        ("profile", vec![("profile", "p")], vec![("HOME", home), off], Some("fromfile/")),
        ("AWS_PROFILE", vec![], vec![("AWS_PROFILE", "p"), ("HOME", home), off], Some("eu-west-3")),
        (
            "instance",
            vec![],
            vec![("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.as_str())],
            Some("frominstance/"),
        ),
        ("nothing", vec![], vec![off], None),
    ] {
        let (proxy, seen) = super::proxy::listening(moto).await;
        let options = [vec![("endpointurl", proxy.as_str())], options].concat();
        let sent = remote(&settings(&url, &options, &environment)).await.put(&sample.objects[0]).await;
        let heads = seen.lock().unwrap().concat();
        if let Some(expected) = expected {
            sent.unwrap_or_else(|error| panic!("{name}: {}", error.render()));
            assert!(heads.contains(expected), "{name}: {heads}");
        } else {
            let why = sent.unwrap_err().render();
            assert!(why.contains("NoCredential") && why.contains("AWS_ACCESS_KEY_ID"), "{why}");
            assert_eq!(heads, "", "nothing is sent unsigned");
        }
    }
}

/// A machine's metadata, IMDSv2 only.
async fn metadata() -> String {
    super::proxy::answering(|head| {
        let credential = r#"{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"frominstance","SecretAccessKey":"s","Token":"t","Expiration":"2099-01-01T00:00:00Z"}"#;
        if head.starts_with("PUT /latest/api/token") {
            (200, "the-token".to_owned())
        } else if !head.to_ascii_lowercase().contains("x-aws-ec2-metadata-token: the-token") {
            (401, String::new())
        } else if head.contains("/security-credentials/role") {
            (200, credential.to_owned())
        } else {
            (200, "role".to_owned())
        }
    })
    .await
}

#[tokio::test]
async fn google_by_an_emulator() {
    let (url, bucket) = or_skip!(servers::google());
    let settings = settings(
        &format!("gs://{bucket}/a/b"),
        &[("endpointurl", &url), ("allow_anonymous_login", "true")],
        &[],
    );
    let sight = Sight::Web(format!("{url}/download/storage/v1/b/{bucket}/o/a%2Fb%2F"), "%2F");
    let spoil = async |object: &Object| {
        let name = format!("a/b/{}", object.oid.key()).replace('/', "%2F");
        let to = format!("{url}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}");
        let put = reqwest::Client::new()
            .post(to)
            .header("content-type", "text/plain")
            .body("wrong")
            .send()
            .await
            .unwrap();
        assert!(put.status().is_success());
    };
    // The emulator takes no empty object, and knows no XML API, by which parts are sent.
    story(&settings, &sight, &Sample::of(&[20, 70_000, 5 << 20]), spoil).await;
}

/// The emulator knows no XML API, by which objects of several parts are sent. It is S3's, which moto knows;
/// what is answered beside it has no MD5, as Google's answers about such objects have none.
#[tokio::test]
async fn google_by_parts_which_are_those_of_s3() {
    let moto = or_skip!(servers::moto());
    let bucket = servers::bucket(moto).await;
    let url = super::proxy::relaying(moto, |head, answer| {
        let Some(key) = head.split_whitespace().nth(1).and_then(|path| path.split_once("/storage/v1/b/"))
        else {
            return answer;
        };
        let (status, length) = (answer.0, answer.1.len());
        let fields = format!(r#"{{"name": "{}", "size": "{length}", "etag": "e"}}"#, key.1);
        (status, if status == 200 { fields.into_bytes() } else { Vec::new() })
    });
    let url = url.await;
    let settings = settings(
        &format!("gs://{bucket}/a/b"),
        &[("endpointurl", &url), ("allow_anonymous_login", "true")],
        &[],
    );
    let sample = Sample::of(&[20 << 20]);
    let (remote, model) = (remote(&settings).await, &sample.objects[0]);
    remote.put(model).await.unwrap_or_else(|error| panic!("{}", error.render()));
    assert_eq!(remote.missing(std::slice::from_ref(model)).await.unwrap(), []);
    let sight = Sight::Web(format!("{moto}/{bucket}/a/b/"), "/");
    assert_eq!(sight.whole_or_nothing(model).await, Some(true));
}

#[tokio::test]
async fn azure_by_azurite() {
    let (connection, container, base) = or_skip!(servers::azure());
    let settings = settings(
        &format!("azure://{container}/a/b"),
        &[],
        &[("AZURE_STORAGE_CONNECTION_STRING", &connection)],
    );
    let base = format!("{base}a/b/");
    let spoiled = settings.clone();
    let spoil = async |object: &Object| {
        // Of a wrong length, by the same way: anonymous writes are refused.
        let python = format!("{}/python", servers::python().unwrap());
        let put = "import sys; from azure.storage.blob import BlobServiceClient as C; \
                   C.from_connection_string(sys.argv[1]).get_blob_client(sys.argv[2], sys.argv[3]).upload_blob(b'wrong', overwrite=True)";
        let key = format!("a/b/{}", object.oid.key());
        let container = spoiled.url.split('/').nth(2).unwrap();
        let done = std::process::Command::new(python)
            .args(["-c", put, &connection, container, &key])
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let sample = Sample::of(&LENGTHS);
    story(&settings, &Sight::Web(base.clone(), "/"), &sample, spoil).await;
    // The store knows the MD5 of what was sent by parts too.
    let large = sample.objects.iter().find(|object| object.size > 1 << 20).unwrap();
    let head = reqwest::Client::new().head(format!("{base}{}", large.oid.key())).send().await.unwrap();
    let md5 = head.headers().get("content-md5").unwrap().to_str().unwrap();
    let expected = u128::from_str_radix(large.oid.md5(), 16).unwrap().to_be_bytes();
    assert_eq!(md5, base64::Engine::encode(&base64::prelude::BASE64_STANDARD, expected));
}

#[tokio::test]
async fn oss_by_moto_which_is_near() {
    let moto = or_skip!(servers::moto());
    let bucket = servers::bucket(moto).await;
    let options = [("oss_endpoint", moto), ("oss_key_id", "id"), ("oss_key_secret", "secret")];
    let base = format!("{moto}/{bucket}/a/b/");
    let spoil = async |object: &Object| overwrite(&base, object).await;
    let settings = settings(&format!("oss://{bucket}/a/b"), &options, &[]);
    story(&settings, &Sight::Web(base.clone(), "/"), &Sample::of(&LENGTHS), spoil).await;
}
