"""The benchmark: this server, Nchan, Faye and a bare C relay, side by side in one run.

`python -m bench` measures and writes `bench/results/`; `README.rst` says what is measured
and how. Imported by its test alone; it imports the public parts of `push_server` only to mint
tokens and to sign publications.
"""
