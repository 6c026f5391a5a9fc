"""What the emulated data stores hold: image sets, their versions and documents, a made-up hospital.

What a request is answered belongs to `service`.
"""
