//! Where credentials may go. The clone's configuration names servers, and in a pull request's pipeline that
//! is a contributor's word.

use super::remote::{NamedBy, Recipient, RemoteName, Settings};
use trainspot_base::error::{Error, Kind, Result};

/// The servers that credentials may go to.
#[derive(Clone, Debug, Default)]
pub(super) struct Trust {
    /// The hosts that the step trusts, each as `host` or `host:port`.
    hosts: Vec<String>,
    /// In a pull request's pipeline, the branch that it would go to.
    target: Option<PullRequestTarget>,
}

/// The branch that a pull request would go to.
#[derive(Clone, Debug)]
pub(super) struct PullRequestTarget {
    /// The branch's name.
    pub(super) branch: String,
    /// Who gets credentials by the configurations of that branch; none if its files are not known.
    pub(super) recipients: Option<Vec<Recipient>>,
}

impl Trust {
    pub(super) fn new(hosts: &[String], target: Option<PullRequestTarget>) -> Self {
        Self { hosts: hosts.to_vec(), target }
    }

    /// Refuses a remote whose credential would go to a server that it must not go to.
    pub(super) fn check(&self, settings: &Settings) -> Result<()> {
        let Some(to) = Recipient::of(settings)? else { return Ok(()) };
        if self.hosts.iter().any(|entry| to.is_called(entry)) {
            return Ok(());
        }
        let place = RemoteName::of(settings);
        let refused = |why: String, hint: String| Err(Error::new(why).kind(Kind::Configuration).hint(hint));
        let word =
            format!("name the server in the step, if it is to be trusted: DVC_TRUSTED_HOSTS: ['{to}']");
        if to.is_plain() && to.named_by != NamedBy::Step && !to.is_here() {
            return refused(
                format!(
                    "the credential of {place} would go to {to} over plain HTTP, for all on the way to read"
                ),
                format!("use https in the remote's configuration; or {word}"),
            );
        }
        if to.is_unchecked() && !to.is_here() {
            return refused(
                format!(
                    "the credential of {place} would go to whoever answers for {to}: `ssl_verify` is off"
                ),
                format!(
                    "set `ssl_verify` to the file of the authority that signed the server's certificate; or {word}"
                ),
            );
        }
        let Some(PullRequestTarget { branch, recipients }) = &self.target else { return Ok(()) };
        match recipients {
            _ if to.is_beyond_configuration() => Ok(()),
            Some(known) if known.iter().any(|known| to.is_like(known)) => Ok(()),
            Some(_) => refused(
                format!(
                    "the pull request would send the credential of {place} to {to}, to which the configuration of {branch} sends none in this way"
                ),
                format!("merge the change of .dvc/config into {branch} first; or {word}"),
            ),
            None => refused(
                format!(
                    "the pull request would send the credential of {place} to {to}, and what the configuration of {branch} says cannot be read in this clone"
                ),
                format!("clone with more history (`clone: depth: full`); or {word}"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str, options: &[(&str, &str)]) -> Settings {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).into()));
        Settings { url: url.to_owned(), options: options.collect(), ..Settings::default() }
    }

    fn of_target(all: &[Settings]) -> PullRequestTarget {
        let recipients = all.iter().filter_map(|settings| Recipient::of(settings).unwrap()).collect();
        PullRequestTarget { branch: "main".to_owned(), recipients: Some(recipients) }
    }

    #[test]
    fn a_credential_needs_a_hidden_way_and_a_server_that_proves_itself() {
        let check = |hosts: &[&str], url: &str, options: &[(&str, &str)]| {
            let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
            Trust::new(&hosts, None).check(&settings(url, options)).map_err(|error| error.render())
        };
        let basic = ("auth", "basic");
        for (url, options) in [
            ("http://h/x", &[][..]),
            ("https://h/x", &[basic]),
            ("http://127.0.0.1:9/x", &[basic]),
            ("http://localhost/x", &[basic]),
            ("http://[::1]:9/x", &[basic]),
            ("s3://b", &[]),
            ("/srv/x", &[]),
            ("ssh://me@h/x", &[("password", "x")]),
        ] {
            assert_eq!(check(&[], url, options), Ok(()), "{url}");
        }
        for (url, options, words) in [
            ("http://h:80/x", &[basic][..], "plain HTTP"),
            ("http://localhost.evil/x", &[basic], "plain HTTP"),
            ("http://127.0.0.1.evil/x", &[basic], "plain HTTP"),
            ("s3://b", &[("use_ssl", "false")], "plain HTTP"),
            ("webdav://h/x", &[("token", "x")], "plain HTTP"),
            ("https://h/x", &[basic, ("ssl_verify", "false")], "`ssl_verify` is off"),
            ("s3://b", &[("ssl_verify", "no")], "`ssl_verify` is off"),
        ] {
            let error = check(&[], url, options).unwrap_err();
            assert!(error.contains(words) && error.contains("DVC_TRUSTED_HOSTS: ['"), "{url}: {error}");
        }
        assert_eq!(check(&["H"], "http://h:81/x", &[basic]), Ok(()));
        assert_eq!(check(&["h:81"], "http://h:81/x", &[basic]), Ok(()));
        assert!(check(&["h:82", "g"], "http://h:81/x", &[basic]).is_err());
    }

    #[test]
    fn a_pull_request_sends_credentials_where_its_target_does() {
        let basic = ("auth", "basic");
        let store = |url: &str| settings(url, &[basic]);
        let known =
            Some(of_target(&[store("https://h/a"), settings("s3://b", &[("endpointurl", "https://o:9")])]));
        let trust = Trust::new(&["trusted".to_owned()], known);
        for same in [
            store("https://h/elsewhere"),
            settings("s3://other", &[("endpointurl", "https://o:9/")]),
            settings("s3://any", &[]),
            store("https://trusted/x"),
            settings("https://evil/x", &[]),
        ] {
            trust.check(&same).unwrap();
        }
        for other in [
            store("https://evil/a"),
            store("https://h:8443/a"),
            store("http://127.0.0.1:9/a"),
            settings("https://h/a", &[basic, ("ssl_verify", "evil.pem")]),
            settings("s3://b", &[("ssl_verify", "evil.pem")]),
            settings("s3://b", &[("endpointurl", "https://o:10")]),
            settings("azure://c", &[("account_name", "evil")]),
        ] {
            let error = trust.check(&other).unwrap_err().render();
            assert!(error.contains("the configuration of main sends none"), "{error}");
        }
        let unknown = PullRequestTarget { branch: "main".to_owned(), recipients: None };
        let trust = Trust::new(&[], Some(unknown));
        trust.check(&settings("s3://b", &[])).unwrap();
        assert!(
            trust.check(&store("https://h/a")).unwrap_err().render().contains("cannot be read in this clone")
        );
    }
}
