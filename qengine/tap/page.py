"""The page that a person finds at the service's address: what is here and how to connect."""

from __future__ import annotations

from html import escape

from qengine.catalog.summary import TableSummary

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:62em;margin:2em auto;padding:0 1em;color:#222}"
    "pre{background:#f4f4f4;padding:.8em;overflow:auto}table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:left;"
    "border-bottom:1px solid #ddd}td.n{text-align:right}"
)

_JOBS = """<h2>Long queries</h2>
<p>A query that takes more than a minute is better run as a job: nothing is lost when the connection breaks or the service
restarts, and its result stays for a while. In TOPCAT choose the mode "Asynchronous".</p>
<pre>job = service.submit_job("SELECT ...")
job.run().wait()
print(job.fetch_result())</pre>
<pre>curl -i {url}/async -d LANG=ADQL -d PHASE=RUN --data-urlencode "QUERY=SELECT ..."</pre>
<p><a href="{url}/async">your jobs</a></p>
"""


def landing_page(title: str, base_url: str, tables: tuple[TableSummary, ...], *, has_jobs: bool = False) -> str:
    """Return the HTML page with connection hints and the list of tables."""
    rows = "".join(
        f'<tr><td><a href="{escape(base_url)}/tables/{escape(table.full_name)}">{escape(table.full_name)}</a></td>'
        f'<td class="n">{table.rows:,}</td><td>{escape(table.description)}</td></tr>\n'
        for table in tables
        if table.schema not in ("TAP_SCHEMA", "qengine_meta")
    )
    url = escape(base_url)
    jobs = _JOBS.format(url=url) if has_jobs else ""
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}: TAP</title><style>{_STYLE}</style></head><body>
<h1>{escape(title)}</h1>
<p>A Table Access Protocol service. Its address, for any TAP client:</p>
<pre>{url}</pre>
<h2>Tables</h2>
<table><tr><th>table</th><th>rows</th><th>description</th></tr>
{rows}</table>
<h2>Python</h2>
<pre>import pyvo
service = pyvo.dal.TAPService("{url}")
print(service.search("SELECT TOP 5 table_name, description FROM TAP_SCHEMA.tables"))</pre>
<h2>TOPCAT</h2>
<p>VO, Table Access Protocol (TAP) Query; at the bottom of the window set
"TAP URL" to the address above and press "Use Service".</p>
<h2>curl</h2>
<pre>curl {url}/sync -d LANG=ADQL -d RESPONSEFORMAT=csv --data-urlencode \\
 "QUERY=SELECT TOP 5 table_name, description FROM TAP_SCHEMA.tables"</pre>
{jobs}<p><a href="{url}/capabilities">capabilities</a> ·
<a href="{url}/tables">tables</a> · <a href="{url}/examples">examples</a> · <a href="{url}/availability">availability</a></p>
</body></html>
"""
