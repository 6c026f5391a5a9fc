#!/usr/bin/env bash
# Fetches with Maven what `make engines-test` needs into var/engines: the jars with which Spark reads
# Iceberg and Delta tables, Trino's server, AWS's Java SDK. DuckDB comes from PyPI, with its extension
# for Iceberg, in the newest release that has both there. Never fails: tests of what is missing are
# skipped, and say so.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$PWD/var/engines
mkdir -p "$folder"

duckdb=$folder/duckdb
if [ ! -e "$duckdb/.whole" ]; then
    if python3 -m venv "$duckdb" && "$duckdb/bin/pip" install -q --disable-pip-version-check \
        duckdb==1.5.5 duckdb-extension-iceberg==1.5.5 duckdb-extension-avro==1.5.5; then
        touch "$duckdb/.whole"
    else
        echo "DuckDB's extension for Iceberg cannot be installed"
    fi
fi

if ! command -v mvn >/dev/null || ! command -v java >/dev/null; then
    echo "no Maven or no Java: most tests of the engines are skipped"
    exit 0
fi
maven() { timeout 600 mvn -q -B "$@" >"$folder/maven.log" 2>&1; }
copy() { # artifact, folder
    maven dependency:copy "-Dartifact=$1" "-DoutputDirectory=$2" || echo "$1 cannot be fetched"
}

for jar in org.apache.iceberg:iceberg-spark-runtime-4.0_2.13:1.10.0 io.delta:delta-spark_2.13:4.0.0 \
    io.delta:delta-storage:4.0.0 org.xerial:sqlite-jdbc:3.50.3.0; do
    name=${jar#*:}
    [ -e "$folder/spark/${name/:/-}.jar" ] || copy "$jar" "$folder/spark"
done

trino=trino-server-476
if [ ! -e "$folder/$trino/.whole" ]; then
    copy io.trino:trino-server:476:tar.gz "$folder"
    # Of fifty plugins one is needed. Its jars are links to those of others, so all are unpacked.
    if [ -e "$folder/$trino.tar.gz" ] && tar -xzf "$folder/$trino.tar.gz" -C "$folder"; then
        find "$folder/$trino/plugin" -mindepth 1 -maxdepth 1 ! -name iceberg -exec rm -r {} +
        touch "$folder/$trino/.whole"
    else
        echo "Trino cannot be unpacked"
    fi
    rm -f "$folder/$trino.tar.gz"
fi

[ -e "$folder/java/.whole" ] ||
    if maven -f tests/engines/java/pom.xml dependency:copy-dependencies \
        "-DoutputDirectory=$folder/java"; then
        touch "$folder/java/.whole"
    else
        echo "AWS's Java SDK cannot be fetched"
    fi
