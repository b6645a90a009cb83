"""The programs that astronomers use, on a service that runs as operators start it, and which test shows what. `test_matrix` looks
whether these tests exist; a dash is what the program cannot do, for which `test_end_jobs` has the reasons.

| client | what | test |
|---|---|---|
| pyvo | sync async | test_live.test_pyvo |
| pyvo | upload | test_upload_clients.test_pyvo |
| pyvo | abort delete | test_end_jobs.test_pyvo |
| astroquery TapPlus | sync async | test_live.test_astroquery |
| astroquery TapPlus | upload | test_upload_clients.test_astroquery |
| astroquery TapPlus | abort | test_end_jobs.test_astroquery |
| astroquery TapPlus | delete | test_end_jobs.test_astroquery_deletes_what_it_cannot_abort |
| stilts tapquery | sync async | test_live.test_stilts_tapquery |
| stilts tapquery | upload | test_upload_clients.test_stilts_tapquery |
| stilts tapquery | abort | - |
| stilts tapquery | delete | test_end_jobs.test_stilts |
| stilts tapquery | delete | test_end_jobs.test_stilts_is_interrupted |
| stilts tapskymatch | sync async upload | test_upload_clients.test_stilts_tapskymatch |
| stilts tapskymatch | abort delete | - |
| curl | sync async | test_live.test_curl |
| curl | upload | test_upload_clients.test_curl |
| curl | upload | test_upload_clients.test_curl_in_a_job |
| curl | abort delete | test_end_jobs.test_curl |
| TOPCAT | sync async upload abort delete | test_topcat.test_topcat_asks_uploads_aborts_and_deletes |
"""
