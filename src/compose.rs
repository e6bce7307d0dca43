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
        source.map_or(String::new(), |source| {
            format!("      - {{ <<: *file, source: {source}, target: /certs }}\n")
        })
    };
    let setting = |line: &str| if certs.is_some() { line.to_owned() } else { String::new() };
    let name = |service: &str| {
        if container_names { format!("    container_name: {service}\n") } else { String::new() }
    };
    // The server needs at least one agency. Without any, `config.ini` says how many there are.
    let amount = if agencies == 0 { String::new() } else { format!("      CLIENTS_AMOUNT: {agencies}\n") };
    let head = HEAD
        .replace("    # CONTAINER_NAME\n", &name("server"))
        .replace("      # CLIENTS_AMOUNT\n", &amount)
        .replace("      # TLS_DIR\n", &setting("      TLS_DIR: /certs\n"))
        .replace("      # SERVER_CERTIFICATE\n", &mount("server"))
        .replace("      # OPERATOR_CERTIFICATE\n", &setting("      CLI_TLS_DIR: /certs\n"))
        .replace("  # AGENCY_CERTIFICATE\n", &setting("  CLI_TLS_DIR: /certs\n"))
        .replace(
            "    # OPERATOR_VOLUME\n",
            &certs.map_or(String::new(), |_| format!("    volumes:\n{}", mount("operator"))),
        )
        .replace("AGENCIES", &agencies.to_string());
    let clients = (1..=agencies).map(|id| {
        let name = name(&format!("client{id}"));
        let file = bind_source(data, &format!("agency-{id}.csv"));
        let certificate = mount(&format!("agency-{id}"));
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
