"""What touches the world: AWS through boto3, a cluster through kubectl, containers through Docker. All safe to repeat."""
