"""The content of the emulated data stores: image sets, versions, documents, a synthetic hospital.

See `service` for the answers to requests.
"""
