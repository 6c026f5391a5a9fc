"""Names that people try on a lake, a cohort or its rows, and the line to write instead.

They know these names from pandas, SQL and other libraries. Each is answered by an AttributeError.
So `hasattr` is False for them, and `dir` does not show them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from cohortlake.errors import did_you_mean

_OF_FRAMES = {
    "{thing}.to_pandas()": (
        "collect compute data dataframe df execute fetch fetchdf frame load pandas result results "
        "toPandas to_dataframe to_df values"
    ),
    "{thing}.to_arrow()": "arrow fetch_arrow_table to_table",
    "{thing}.to_polars()": "pl polars",
    "{thing}.to_pandas().{name}": (
        "agg apply assign astype at corr drop_duplicates dtypes duplicated eval explode fillna "
        "iloc index isin isna iterrows itertuples loc map mean merge nlargest nunique pivot "
        "pivot_table rename reset_index sample set_index sort_values tail to_clipboard to_html "
        "to_json to_list to_markdown to_numpy unique"
    ),
}
_OF_ROWS = {
    "{thing}.to_pandas().{name}": (
        "describe drop dropna groupby hist info plot query sum to_csv to_excel to_parquet "
        "value_counts"
    ),
    '{thing}.relation.filter("n_series > 1")': "filter where",
    "len({thing})": "count shape size",
}
_OF_COHORTS = {
    'cohort.where(PatientSex="F") or cohort.where("n_series > 1")': (
        "filter include keep query restrict select subset"
    ),
    'cohort.exclude(PatientSex="F") or cohort.exclude("n_series > 1")': (
        "drop dropna remove without"
    ),
    'cohort.export("members.csv")': "csv to_csv write write_csv",
    'cohort.export("members.xlsx")': "excel to_excel to_xlsx xlsx",
    'cohort.export("members.parquet")': "to_parquet write_parquet",
    'cohort.export("members.csv"), and cohort.freeze() to prove who was in it': "save",
    'cohort.manifest("pixels", format="ahi-retrieve")': (
        "croissant datalist dicomweb download fetch frames images monai pixels to_monai"
    ),
    "cohort.freeze()": "lock persist register snapshot",
    "cohort.count()": (
        "count_members count_patients count_studies n n_members n_patients n_studies num_patients "
        "patient_count patients size studies"
    ),
    'cohort.count("PatientSex")': "by crosstab group_by groupby nunique value_counts",
    "cohort.table_one()": (
        "baseline characteristics describe info summarise summarize summary table1 tableone"
    ),
    "cohort.first_study_per_patient()": "earliest first first_per_patient first_study index_study",
    "cohort.last_study_per_patient()": "last last_per_patient last_study latest most_recent",
    'cohort.closest_study_per_patient(to="2020-01-31")': (
        "closest closest_study nearest nearest_study"
    ),
    "cohort.random_study_per_patient(seed=1)": "random random_study sample",
    "cohort.first_study_per_patient(), or last_..., closest_... and random_...": (
        "distinct drop_duplicates one_per_patient one_study_per_patient unique_patients"
    ),
    'cohort.with_study("within 12 months before", Modality="CT")': (
        "after before followed_by has_prior has_study preceded_by prior with_followup with_prior "
        "within"
    ),
    'cohort.without_study("any time before", Modality="CT")': "no_prior washout without_prior",
    'cohort.join(frame, name="registry")': "attach inner_join left_join link merge",
    "cohort.split(train=0.8, test=0.2, seed=1)": "folds partition stratify train_test_split",
    "cohort.attrition()": "attrition_table consort flow flow_chart flow_diagram flowchart steps",
    "cohort.plot.age_sex_pyramid() or cohort.plot.studies_over_time()": (
        "boxplot figure hist pyramid show"
    ),
    "cohort.criteria.to_yaml()": "definition to_dict to_yaml yaml",
    "cohort.criteria.name": "name",
    "cohort.selected.query": "explain sql to_sql",
    "len(cohort)": "shape",
    "cohort.where(\"Modality = 'CT' or n_series > 1\")": "concat or_where union",
}
_OF_ATTRITIONS = {
    "{thing}.to_pandas()": "data dataframe df frame pandas table to_dataframe to_df",
    "{thing}.to_pandas().{name}": "columns head iloc loc shape to_csv to_excel to_html to_latex",
    'attrition.save("flow.svg")': "export savefig to_png to_svg write",
    "attrition.figure()": "consort draw plot show",
}
_OF_LAKES = {
    'lake.sql("SELECT count(*) FROM studies")': "execute query select",
    'lake.table("studies")': (
        "df fetch frame get get_table load read read_table scan to_dataframe to_pandas"
    ),
    "lake.studies.head()": "head sample",
    'lake.describe("studies")': "dictionary dtypes info schema",
    'lake.columns("studies")': "column_names fields",
    "lake.tables": "list_tables names show_tables table_names",
    'lake.cohort("name").where(PatientSex="F")': (
        "create_cohort exclude filter make_cohort new_cohort where"
    ),
    'lake.cohort("name").freeze()': "freeze snapshot",
    'lake.load_cohort("cohorts/name.yaml")': "from_yaml open_cohort read_cohort",
    'lake.attach("registry", frame)': "add_table join merge register",
    "lake.publication().policy": "policy privacy",
    "lake.publication().complete_until": "complete_until freshness last_updated updated",
    "lake.connection": "con conn connect db duckdb",
    "lake.root.uri": "location path uri",
    "cohortlake.open(lake.root.uri)": "refresh reload reopen sync update",
}


def _lines(*tables: Mapping[str, str]) -> dict[str, str]:
    return {
        name: line for table in tables for line, names in table.items() for name in names.split()
    }


COHORTS, LAKES = _lines(_OF_FRAMES, _OF_COHORTS), _lines(_OF_LAKES)
ROWS, ATTRITIONS = _lines(_OF_FRAMES, _OF_ROWS), _lines(_OF_ATTRITIONS)


def answer(
    thing: str,
    name: str,
    lines: Mapping[str, str],
    there: Iterable[str],
    columns: Collection[str] = (),
) -> AttributeError:
    """Return the error for a name that an object does not have.

    Args:
        thing: `lake`, `cohort`, `rows` or `attrition`.
        name: The name that was asked for.
        lines: Name -> the line to write instead.
        there: The names that the object has.
        columns: The names of its columns.
    """
    said = f"{thing}.{name} is not there"
    if name.startswith("_"):  # Python and notebooks ask for such names
        return AttributeError(said)
    if name in columns:
        return AttributeError(f"{said}: write {thing}.to_pandas()[{name!r}]")
    if name in lines:
        return AttributeError(f"{said}: write {lines[name].format(thing=thing, name=name)}")
    return AttributeError(f"{said}{did_you_mean(name, (n for n in there if n[0] != '_'))}")
