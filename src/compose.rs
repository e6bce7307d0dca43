//! `loteria compose`: the `docker-compose.yaml` of a contest. The file in the repository is for five agencies.

/// The most agencies: a bridge of Linux has room for 1,023 containers, and the server is one.
pub(crate) const MAX_AGENCIES: i64 = 1000;
/// The default folder of the agencies' files.
pub(crate) const DEFAULT_DATA: &str = "./tests/data";

/// The beginning of the file: what all services share, and the server.
const HEAD: &str = include_str!("compose_head.yaml");

/// Makes the compose file for that many agencies, with their files in the folder `data`, and their certificates in the folder
/// `certs` if there is one. With `container_names`, each container has the name of its service.
pub(crate) fn compose_file(agencies: u16, data: &str, certs: Option<&str>, container_names: bool) -> String {
    // A folder, not its files: a mounted file stays the old one when it is replaced.
    let mount = |service: &str| {
        let source = certs.map(|certs| bind_source(certs, service));
        source.map(|source| format!("      - {{ <<: *file, source: {source}, target: /certs }}\n"))
    };
    let with_certs = |line: &str| certs.map(|_| line.to_owned());
    let name = |service: &str| container_names.then(|| format!("    container_name: {service}\n"));
    let head = [
        ("    # CONTAINER_NAME\n", name("server")),
        // The server needs at least one agency. Without any, `config.ini` says how many there are.
        ("      # CLIENTS_AMOUNT\n", (agencies > 0).then(|| format!("      CLIENTS_AMOUNT: {agencies}\n"))),
        ("      # TLS_DIR\n", with_certs("      TLS_DIR: /certs\n")),
        ("      # SERVER_CERTIFICATE\n", mount("server")),
        ("      # OPERATOR_CERTIFICATE\n", with_certs("      CLI_TLS_DIR: /certs\n")),
        ("  # AGENCY_CERTIFICATE\n", with_certs("  CLI_TLS_DIR: /certs\n")),
        ("    # OPERATOR_VOLUME\n", mount("operator").map(|mount| format!("    volumes:\n{mount}"))),
        ("AGENCIES", Some(agencies.to_string())),
    ]
    .into_iter()
    .fold(HEAD.to_owned(), |head, (mark, lines)| head.replace(mark, &lines.unwrap_or_default()));
    let clients = (1..=agencies).map(|id| {
        let name = name(&format!("client{id}")).unwrap_or_default();
        let file = bind_source(data, &format!("agency-{id}.csv"));
        let certificate = mount(&format!("agency-{id}")).unwrap_or_default();
        format!(
            "\n  client{id}:\n    <<: *client\n{name}    environment: {{ <<: *agency, CLI_ID: {id} }}\n    volumes:\n      \
             - *config\n      - {{ <<: *file, source: {file}, target: /agency-{id}.csv }}\n{certificate}"
        )
    });
    [head].into_iter().chain(clients).collect()
}

/// Returns the path of a file of the host as a YAML string. Compose would take `bets` for a volume, `~` for a home and `$x`
/// for a variable: a relative path begins with `./`, and a dollar is doubled.
fn bind_source(folder: &str, file: &str) -> String {
    let start = if folder.starts_with('/') || folder.starts_with("./") { "" } else { "./" };
    let path = format!("{start}{}/{file}", folder.trim_end_matches('/')).replace('$', "$$");
    // A JSON string is a YAML string too.
    serde_json::Value::String(path).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_folder_name_is_kept() {
        for (folder, source) in [
            ("./data/", r#""./data/f""#),
            ("/srv/a b", r#""/srv/a b/f""#),
            ("/", r#""/f""#),
            ("..", r#""./../f""#),
            ("~x", r#""./~x/f""#),
            ("a$B\": ", r#""./a$$B\": /f""#),
        ] {
            assert_eq!(bind_source(folder, "f"), source);
        }
    }
}
